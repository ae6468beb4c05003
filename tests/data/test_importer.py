from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import eqr_core.data.importer as importer
from eqr_core.data.importer import find_source, import_puzzles
from eqr_core.data.packed import join, pack, unpack
from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.data.stream import Wanted, first_rows
from eqr_core.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows() -> list[PuzzleRow]:
    made = first_rows(Wanted(4, (2, 2)), 60)
    return [PuzzleRow(f"s{i % 3}", r.question, r.answer, i) for i, r in enumerate(made)]


@pytest.fixture
def path(rows: list[PuzzleRow], tmp_path: Path) -> Path:
    write_puzzles(tmp_path / "p.csv", rows)
    return tmp_path / "p.csv"


def test_all_rows_come_in_order(rows: list[PuzzleRow], path: Path) -> None:
    read: list[int] = []
    assert list(unpack(import_puzzles(path, report=read.append))) == rows
    assert sum(read) == 60


def test_a_sample_is_drawn_by_its_seed(
    rows: list[PuzzleRow], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = import_puzzles(path, sample=20, seed=1)
    numbers = drawn.rating.tolist()
    assert len(set(numbers)) == 20
    assert numbers == sorted(numbers)
    assert list(unpack(drawn)) == [rows[i] for i in numbers]
    assert numbers != import_puzzles(path, sample=20, seed=2).rating.tolist()
    assert len(import_puzzles(path, sample=60)) == 60
    # The same rows where a large file is thinned out on the way.
    monkeypatch.setattr(importer, "SPARE_ROWS", 0)
    monkeypatch.setattr(
        importer, "read_chunks", lambda p: (rows[i : i + 7] for i in range(0, 60, 7))
    )
    assert import_puzzles(path, sample=20, seed=1).rating.tolist() == numbers


def test_every_row_is_as_likely(path: Path) -> None:
    counts = np.zeros(60)
    for seed in range(300):
        counts[import_puzzles(path, sample=15, seed=seed).rating] += 1
    # 75 expected each, with a standard deviation of 7.5.
    assert 40 < counts.min() <= counts.max() < 115


def test_bad_rows_are_named_by_their_lines(rows: list[PuzzleRow], tmp_path: Path) -> None:
    question, answer = rows[0].question, rows[0].answer
    bad = [
        PuzzleRow("x", question[:-1], answer, 0),
        PuzzleRow("x", question, answer[:-1] + answer[0], 0),
        PuzzleRow("x", question, "9" * 16, 0),
    ]
    path = tmp_path / "bad.csv.gz"
    write_puzzles(path, [*rows[:8], bad[0], *rows[8:10], *bad[1:], *rows])
    with pytest.raises(DataError) as caught:
        import_puzzles(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 10: the question has 15 cells")
    assert "line 13: " in message
    assert "line 14: '9' stands in the answer" in message
    assert message.count("line ") == 3
    write_puzzles(path, [*bad * 10])
    with pytest.raises(DataError, match="bad") as caught:
        import_puzzles(path)
    assert str(caught.value).count("line ") == importer.SHOWN_FAULTS


def test_other_faults_are_data_errors(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample is 61; .* has 60 rows"):
        import_puzzles(path, sample=61)
    with pytest.raises(DataError, match="sample is 0"):
        import_puzzles(path, sample=0)
    write_puzzles(tmp_path / "none.csv", [])
    with pytest.raises(DataError, match="no puzzles"):
        import_puzzles(tmp_path / "none.csv")
    path.write_text("question,answer\n", encoding="utf-8")
    with pytest.raises(DataError, match="the first line is"):
        import_puzzles(path)


def test_parts_join_with_one_list_of_sources(rows: list[PuzzleRow]) -> None:
    parts = [pack(rows[1:5]), pack(rows[5:]), pack(rows[:1])]
    assert list(unpack(join(parts))) == [*rows[1:], rows[0]]


def test_a_file_is_found_and_what_is_none_is_refused(path: Path) -> None:
    assert find_source(str(path), "train.csv") == path
    for wrong in ("nothing.csv", "no/such.csv", "no/such/file", "a b/c", "nothing"):
        with pytest.raises(DataError, match="no such file, and not the id of a dataset"):
            find_source(wrong, "train.csv")


def on_the_hub(source: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """`find_source` in a process of its own: the Hub's package reads its variables once."""
    script = (
        "import sys\n"
        "from eqr_core.data.importer import find_source\n"
        "from eqr_core.errors import DataError\n"
        "try:\n    print(find_source(sys.argv[1], 'train.csv'))\n"
        "except DataError as error:\n    sys.exit(str(error))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, source],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )


def test_a_dataset_comes_from_the_hubs_cache(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    # The layout in which the Hub's package keeps what it has downloaded.
    folder = tmp_path / "cache" / "datasets--owner--puzzles"
    revision = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision, encoding="utf-8")
    (folder / "snapshots" / revision).mkdir(parents=True)
    kept = folder / "snapshots" / revision / "train.csv"
    kept.write_bytes(path.read_bytes())
    done = on_the_hub("owner/puzzles", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert import_puzzles(Path(done.stdout.strip())).digest == import_puzzles(path).digest


def test_no_network_is_said_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = on_the_hub("owner/puzzles", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.csv of the dataset owner/puzzles cannot be had from the Hugging")
    assert line.endswith("download it elsewhere and give its path")


def test_a_missing_package_is_said_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install '.\[hub\]'"):
        find_source("owner/puzzles", "train.csv")

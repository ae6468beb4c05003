from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.data.puzzles import (
    COLUMNS,
    PuzzleRow,
    digit_tokens,
    read_puzzles,
    write_puzzles,
)
from eqr_core.errors import DataError
from eqr_core.tasks import parse_grid
from tests.tasks.grids import Rows, puzzles

HEADER = ",".join(COLUMNS) + "\n"
ROW = PuzzleRow("made", "1" + "." * 15, "1234341221434321", 0)

rows = st.lists(
    st.builds(
        PuzzleRow,
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=20),
        st.text("123456789.", max_size=81),
        st.text("123456789", max_size=81),
        st.integers(-1, 10**6),
    ),
    max_size=20,
)


@given(rows=rows, name=st.sampled_from(["puzzles.csv", "puzzles.csv.gz"]))
def test_rows_survive_the_file(
    rows: list[PuzzleRow], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("puzzles") / name
    assert write_puzzles(path, rows) == len(rows)
    assert list(read_puzzles(path)) == rows
    assert list(read_puzzles(path, limit=3)) == rows[:3]


def test_gz_files_are_gzip_and_others_plain(tmp_path: Path) -> None:
    write_puzzles(tmp_path / "a.csv", [ROW])
    write_puzzles(tmp_path / "a.csv.gz", iter([ROW]))
    plain = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == plain
    assert plain.decode() == f"{HEADER}made,{ROW.question},{ROW.answer},0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is None"),
        ("question,answer\n", "the first line is"),
        (HEADER + "a,b,c\n", "line 2"),
        (HEADER + "a,b,c,1\na,b,c,d,1\n", "line 3"),
        (HEADER + "a,b,c,hard\n", "line 2"),
        (HEADER + "a,b,c,--1\n", "line 2"),
        (HEADER + "a,b,c,\n", "line 2"),
        (HEADER + "a,b,c,²\n", "line 2"),
        (HEADER + "a,b,c," + "9" * 5000 + "\n", "line 2"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        list(read_puzzles(path))
    assert str(caught.value).startswith(str(path))


def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    good = tmp_path / "good.csv.gz"
    write_puzzles(good, [ROW] * 1000)
    packed = good.read_bytes()
    damaged = bytearray(packed)
    damaged[20:40] = bytes(20)
    contents = {
        "missing.csv": None,
        "plain.csv.gz": HEADER.encode(),
        "short.csv.gz": packed[: len(packed) // 2],
        "damaged.csv.gz": bytes(damaged),
        "latin.csv": HEADER.encode() + b"\xff,b,c,1\n",
        "huge.csv": HEADER.encode() + b"a" * 200_000 + b",b,c,1\n",
    }
    for name, content in contents.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            list(read_puzzles(path))
    with pytest.raises(DataError):
        list(read_puzzles(tmp_path))


def test_a_file_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no_such_folder"):
        write_puzzles(tmp_path / "no_such_folder" / "a.csv", [ROW])


@given(puzzles())
def test_tokens_of_texts_are_those_of_the_task(case: tuple[object, Rows, Rows]) -> None:
    task, grid = parse_grid(case[1])
    _, solution = parse_grid(case[2])
    tokens = digit_tokens([task.text(grid), task.text(solution)])
    assert tokens.tolist() == [task.encode(grid).tolist(), task.encode(solution).tolist()]


@pytest.mark.parametrize("texts", [[], ["1...", "1....."], ["1..x"], ["1..²"], ["12.4", "12-4"]])
def test_texts_that_are_no_puzzles_are_data_errors(texts: list[str]) -> None:
    with pytest.raises(DataError):
        digit_tokens(texts)

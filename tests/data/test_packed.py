from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.packed import PackedPuzzles, load, pack
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import Sudoku


@pytest.fixture
def rows() -> list[PuzzleRow]:
    return list(generate_sudoku(Sudoku((2, 2)), 20, seed=1))


@pytest.fixture
def packed(rows: list[PuzzleRow]) -> PackedPuzzles:
    return pack(rows)


def test_packing_keeps_tokens_ratings_and_sources(rows: list[PuzzleRow]) -> None:
    second = PuzzleRow("mine", rows[0].question, rows[0].answer, 7)
    packed = pack([*rows, second])
    task = Sudoku((2, 2))
    assert packed.cells == 16
    assert packed.sources == ("generated_4x4", "mine")
    assert packed.rating[-1] == 7
    assert packed.source.tolist() == [0] * 20 + [1]
    for row, question, answer in zip(rows, packed.question, packed.answer, strict=False):
        assert task.text(task.decode(question)) == row.question
        assert task.text(task.decode(answer)) == row.answer


def test_a_file_gives_back_what_was_saved(packed: PackedPuzzles, tmp_path: Path) -> None:
    path = tmp_path / "puzzles.npz"
    packed.save(path)
    again = load(path)
    assert again.digest == packed.digest
    assert again.sources == packed.sources
    np.testing.assert_array_equal(again.question, packed.question)


def test_the_digest_sees_every_array(packed: PackedPuzzles) -> None:
    changed = packed.rating.copy()
    changed[3] += 1
    other = PackedPuzzles(
        packed.question, packed.answer, changed, packed.source, packed.sources, packed.task
    )
    assert other.digest != packed.digest


def test_a_split_parts_the_puzzles(packed: PackedPuzzles) -> None:
    training, validation = packed.split(5, seed=1)
    assert (len(training), len(validation)) == (15, 5)
    parts = [*map(bytes, training.question), *map(bytes, validation.question)]
    assert sorted(parts) == sorted(map(bytes, packed.question))
    assert packed.split(5, seed=1)[1].digest == validation.digest
    assert packed.split(5, seed=2)[1].digest != validation.digest
    for wrong in (0, 20, -1):
        with pytest.raises(DataError, match="validation_rows"):
            packed.split(wrong, seed=1)


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("1" * 6, "1" * 6, "6 cells"),
        ("." * 81, "1" * 81, "81 cells; the first question has 16"),
        ("." * 16, "1" * 15, "the answer has 15"),
        ("5" + "." * 15, "1" * 16, "'5' stands in the question"),
        ("é" + "." * 15, "1" * 16, "'é' stands in the question"),
        ("." * 16, "." + "1" * 15, "'.' stands in the answer"),
        ("2" + "." * 15, "1" * 16, "has 1 where the clue is 2"),
    ],
)
def test_bad_rows_are_named(
    rows: list[PuzzleRow], question: str, answer: str, message: str
) -> None:
    first = [] if len(question) == 6 else rows
    with pytest.raises(DataError, match=f"row {len(first) + 1}: .*{message}"):
        pack([*first, PuzzleRow("x", question, answer, 0)])


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no puzzles"):
        pack([])


def test_files_that_are_none_are_refused(packed: PackedPuzzles, tmp_path: Path) -> None:
    path = tmp_path / "puzzles.npz"
    with pytest.raises(DataError, match="not a packed"):
        load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not a packed"):
        load(path)
    packed.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a packed"):
        load(path)
    np.save(path.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a packed"):
        load(path.with_suffix(".npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": None}, "rating is missing"),
        ({"question": np.zeros((20, 16), np.uint8)}, "question holds 0 to 0"),
        ({"answer": np.full((20, 16), 1, np.uint8)}, "answer holds 1 to 1"),
        ({"answer": np.full((19, 16), 2, np.uint8)}, "answer is uint8"),
        ({"rating": np.zeros(20)}, "rating is float64"),
        ({"source": np.full(20, 9, np.int32)}, "source holds 9 to 9"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    packed: PackedPuzzles, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    arrays: dict[str, object] = {
        "question": packed.question,
        "answer": packed.answer,
        "rating": packed.rating,
        "source": packed.source,
        "sources": np.array(packed.sources),
    } | change
    path = tmp_path / "puzzles.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load(path)

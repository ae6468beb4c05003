from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eqr_core.data.check import check_file, check_pair
from eqr_core.data.equivalence import split_apart
from eqr_core.data.packed import PackedPuzzles, join, pack, unpack
from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.data.stream import Wanted, first_rows
from eqr_core.data.symmetry import random_images
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import BOXES


@pytest.fixture(scope="module")
def puzzles() -> PackedPuzzles:
    return pack(first_rows(Wanted(9, (3, 3), seed=4), 40))


def images(puzzles: PackedPuzzles) -> PackedPuzzles:
    random = np.random.default_rng(1)
    question, answer = random_images(
        BOXES[puzzles.task.rows], random, puzzles.question - 1, puzzles.answer - 1
    )
    return replace(puzzles, question=question + 1, answer=answer + 1)


def loose(puzzles: PackedPuzzles) -> PackedPuzzles:
    """`puzzles` without their first clues: with several solutions."""
    question = puzzles.question.copy()
    question[np.arange(len(question)), (question != 1).argmax(axis=1)] = 1
    return replace(puzzles, question=question)


def written(path: Path, *rows: PuzzleRow | PackedPuzzles) -> Path:
    parts = [[one] if isinstance(one, PuzzleRow) else list(unpack(one)) for one in rows]
    write_puzzles(path, [row for part in parts for row in part])
    return path


def test_a_sound_file_has_no_faults(puzzles: PackedPuzzles, tmp_path: Path) -> None:
    searched: list[int] = []
    report, read = check_file(written(tmp_path / "p.csv.gz", puzzles), searched.append)
    assert (report.rows, report.faults, report.equivalents, report.undecided) == (40, 0, 0, 0)
    assert sum(searched) == 40
    assert read is not None
    assert read.digest == puzzles.digest
    puzzles.save(tmp_path / "p.npz")
    packed, _ = check_file(tmp_path / "p.npz")
    assert replace(packed, path="") == replace(report, path="")


def test_each_fault_is_counted(puzzles: PackedPuzzles, tmp_path: Path) -> None:
    few = puzzles.take(np.arange(5))
    row = next(unpack(few))
    path = written(
        tmp_path / "p.csv",
        puzzles,
        replace(row, question=row.question[:-1]),
        replace(row, answer=row.answer[::-1]),
        few,
        images(few),
        loose(puzzles.take(np.arange(5, 8))),
    )
    report, read = check_file(path)
    assert report.rows == 40 + 2 + 5 + 5 + 3
    assert report.malformed == 2
    assert report.first_malformed.startswith("line 42: the question has 80 cells")
    assert report.duplicates == 5
    assert report.equivalents == 5
    assert report.several_solutions == 3
    assert report.faults == 10
    assert read is not None
    assert len(read) == 53


def test_a_file_without_one_sound_row_is_counted_too(tmp_path: Path) -> None:
    report, read = check_file(written(tmp_path / "p.csv", PuzzleRow("x", "12", "12", 0)))
    assert (report.rows, report.malformed, report.faults) == (1, 1, 1)
    assert read is None
    with pytest.raises(DataError, match="no puzzles"):
        check_file(written(tmp_path / "none.csv"))


def test_what_two_files_share_is_counted(puzzles: PackedPuzzles) -> None:
    first, second = puzzles.take(np.arange(20)), puzzles.take(np.arange(20, 40))
    assert check_pair(first, second).faults == 0
    same, image = puzzles.take(np.arange(3)), images(puzzles.take(np.arange(3, 7)))
    # The same solutions with other clues: neither equal nor equivalent puzzles.
    part = puzzles.take(np.arange(7, 12))
    other = images(replace(part, question=part.answer))
    report = check_pair(first, join([second, same, image, other]))
    assert (report.duplicates, report.equivalents, report.shared_grids) == (3, 7, 12)
    assert report.faults == 12


def test_grids_of_small_puzzles_may_be_shared() -> None:
    made = pack(first_rows(Wanted(4, (2, 2)), 120))
    rest, held = split_apart(made, 40, seed=1)
    report = check_pair(rest, held)
    assert report.shared_grids == 40
    assert (report.equivalents, report.faults) == (0, 0)
    assert check_pair(rest, images(rest.take(np.arange(4)))).faults == 4


def test_sizes_share_nothing(puzzles: PackedPuzzles) -> None:
    assert check_pair(pack(first_rows(Wanted(4, (2, 2)), 5)), puzzles).faults == 0


def test_16x16_puzzles_are_checked_without_symmetries(tmp_path: Path) -> None:
    rows = list(first_rows(Wanted(16, (4, 4), clues=170), 2))
    report, read = check_file(written(tmp_path / "p.csv", *rows, rows[0]))
    assert (report.duplicates, report.equivalents, report.several_solutions) == (1, None, 0)
    assert read is not None
    pair = check_pair(read, read)
    assert (pair.duplicates, pair.shared_grids, pair.faults) == (3, None, 3)

"""What is wrong with puzzle files, alone and with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqr_core.data.equivalence import MANY_GRIDS, grid_keys, puzzle_keys
from eqr_core.data.forms import form_of
from eqr_core.data.packed import PackedPuzzles, faults, join, load, pack, usual_task
from eqr_core.data.puzzles import read_chunks
from eqr_core.errors import DataError

SEARCH_ROWS = 4096
"""Puzzles searched together."""


@dataclass(frozen=True)
class FileReport:
    """What one puzzle file holds; counts of rows."""

    path: str
    rows: int
    malformed: int
    """No solved puzzle: a wrong length, a wrong character, an answer that breaks the rules or
    contradicts a clue. These rows are left out of all other counts."""
    first_malformed: str
    """The first of them, with its line."""
    several_solutions: int
    undecided: int
    """So hard that the search for a second solution was given up, or of a task that has none."""
    duplicates: int
    """The question stands in an earlier row already."""
    equivalents: int | None
    """Not equal but equivalent to a puzzle of an earlier row; None at 16×16."""

    @property
    def faults(self) -> int:
        """Rows that no puzzle file should have; equivalent puzzles may be meant."""
        return self.malformed + self.several_solutions + self.duplicates


@dataclass(frozen=True)
class PairReport:
    """How much of the second file is in the first; counts of rows of the second."""

    duplicates: int
    """The same question."""
    equivalents: int | None
    """An equivalent puzzle, equal ones included; None at 16×16."""
    shared_grids: int | None
    """An equivalent solution grid, that of equivalent puzzles included; None at 16×16."""
    many_grids: bool
    """Whether there are so many grids of this size that sharing one is a fault."""

    @property
    def faults(self) -> int:
        """Rows of the second file that tell something of the first."""
        likes = [self.duplicates, self.equivalents or 0]
        return max([*likes, self.shared_grids or 0] if self.many_grids else likes)


def check_file(
    path: Path, report: Callable[[int], None] = lambda rows: None
) -> tuple[FileReport, PackedPuzzles | None]:
    """Check one puzzle file, CSV or packed; its sound puzzles come along, None without any.

    `report` gets the number of rows searched since the last call. DataError where the file
    cannot be read at all.
    """
    puzzles, rows, malformed, first = _read(path)
    several = undecided = duplicates = 0
    equivalents: int | None = 0
    if puzzles is not None:
        form = form_of(puzzles.task.name)
        for start in range(0, len(puzzles), SEARCH_ROWS):
            part = puzzles.question[start : start + SEARCH_ROWS]
            found = form.several(puzzles.task, part)
            several += 0 if found is None else int(found[0].sum())
            undecided += len(part) if found is None else int(found[1].sum())
            report(len(part))
        different = len(np.unique(puzzles.question, axis=0))
        duplicates = len(puzzles) - different
        names = puzzle_keys(puzzles)
        equivalents = None if names is None else different - len(np.unique(names))
    return (
        FileReport(str(path), rows, malformed, first, several, undecided, duplicates, equivalents),
        puzzles,
    )


def check_pair(first: PackedPuzzles, second: PackedPuzzles) -> PairReport:
    """How much of `second` is in `first`. Puzzles of different sizes share nothing."""
    many = second.cells >= MANY_GRIDS
    if first.task != second.task:
        return PairReport(0, 0, 0, many)
    known = {row.tobytes() for row in first.question}
    duplicates = sum(row.tobytes() in known for row in second.question)
    counts: list[int | None] = []
    for named in (puzzle_keys, grid_keys):
        old, new = named(first), named(second)
        counts.append(None if old is None or new is None else int(np.isin(new, old).sum()))
    return PairReport(duplicates, counts[0], counts[1], many)


def _read(path: Path) -> tuple[PackedPuzzles | None, int, int, str]:
    """The sound rows of a file, the number of all rows and of the others, and the first other."""
    if path.suffix == ".npz":
        puzzles = load(path)
        return puzzles, len(puzzles), 0, ""
    parts: list[PackedPuzzles] = []
    read, malformed, first, task = 0, 0, "", None
    for rows in read_chunks(path):
        task = task or usual_task(rows)
        bad = dict(faults(rows, task))
        if bad and not malformed:
            number, fault = next(iter(bad.items()))
            first = f"line {read + number + 2}: {fault}"
        malformed += len(bad)
        read += len(rows)
        if len(bad) < len(rows):
            parts.append(pack(row for i, row in enumerate(rows) if i not in bad))
    if not read:
        raise DataError(f"{path}: there are no puzzles in it")
    return (join(parts) if parts else None), read, malformed, first

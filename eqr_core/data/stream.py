"""The units that streams of generated Sudokus are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eqr_core.data.canonical import canonical_grids
from eqr_core.data.climb import Rated, climb
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.lanes import Boards, search
from eqr_core.data.minimal import random_puzzles
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.units import Unit, first_rows, puzzle_stream
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import DIGITS, Sudoku

__all__ = ["Wanted", "first_rows", "puzzle_stream"]

POOL = 256
"""Puzzles of one climb, and random puzzles made at once."""

STEPS = 200
"""Steps of one climb at most."""

UNIT_ROWS = 256
"""Rows after which a climb ends: the next begins with other puzzles."""

SLOW_UNIT_ROWS = {4: 100, 6: 100, 9: 100, 16: 4}
"""Rows of a unit that are made one at a time, for each side of the grid."""

MANY_GRIDS = 9
"""Side from which no two puzzles of a stream share a solution grid, up to symmetry. There are 2
different grids of 4×4 and 49 of 6×6."""


@dataclass(frozen=True)
class Wanted:
    """Which puzzles a stream is made of."""

    size: int
    """Side of the grid."""
    box: tuple[int, int]
    seed: int = 0
    clues: int | tuple[int, int] | None = None
    """Number of clues, or a range; None for minimal puzzles."""
    min_rating: int | None = None
    """Fewest guesses of the rating solver; where set, puzzles come from hill climbing too."""
    max_rating: int | None = None
    """Most guesses of the rating solver."""

    def __post_init__(self) -> None:
        low, high = self.min_rating, self.max_rating
        for name, value in (("seed", self.seed), ("min_rating", low), ("max_rating", high)):
            if value is not None and not 0 <= value < 2**31:
                raise DataError(f"{name} is {value}; it must be from 0 to {2**31 - 1}")
        if low is not None and high is not None and low > high:
            raise DataError(f"min_rating is {low}; max_rating is {high}, which is less")

    def unit(self, number: int) -> Unit:
        """The rows of one unit.

        `rating` counts the guesses of the rating solver (`backtracking`) for the puzzle as
        written; with `min_rating` or `max_rating`, so does the mean over three images.
        """
        if self.one_by_one:
            yield from _slow_unit(self, number)
            return
        random = np.random.default_rng([self.seed, self.size, number])
        own: set[str] = set()
        for puzzles in _batches(self, random):
            fit = puzzles.take(_fitting(self, puzzles))
            for like, row in _rows(self, fit):
                if like not in own:
                    own.add(like)
                    yield like, row
            if len(own) >= UNIT_ROWS:
                return

    @property
    def one_by_one(self) -> bool:
        """Whether the puzzles come from the sequential generator."""
        return self.clues is not None or self.size > MANY_GRIDS

    def __str__(self) -> str:
        wishes = {name: getattr(self, name) for name in ("clues", "min_rating", "max_rating")}
        asked = ", ".join(f"{k}={v}" for k, v in wishes.items() if v is not None)
        return f"{self.size}x{self.size} puzzles" + (f" with {asked}" if asked else "")


def _batches(wanted: Wanted, random: np.random.Generator) -> Iterator[Rated]:
    box = wanted.box
    if wanted.min_rating:
        yield from climb(box, POOL, STEPS, wanted.min_rating, wanted.max_rating, random)
        return
    question, answer = random_puzzles(box, POOL, random)
    found = search(box, question, limit=1)
    mean = found.rating.astype(np.float64)
    yield Rated(question, answer, found.rating, mean, mean)


def _fitting(wanted: Wanted, puzzles: Rated) -> npt.NDArray[np.bool_]:
    low, high = wanted.min_rating or 0, wanted.max_rating
    fits = (puzzles.rating >= low) & (puzzles.mean_rating >= low)
    if high is not None:
        fits &= (puzzles.rating <= high) & (puzzles.mean_rating <= high)
    return fits


def _rows(wanted: Wanted, puzzles: Rated) -> Unit:
    source = f"{'climbed' if wanted.min_rating else 'generated'}_{wanted.size}x{wanted.size}"
    texts = _texts(puzzles.question)
    same = texts
    if wanted.size >= MANY_GRIDS:
        same = _texts(canonical_grids(wanted.box, puzzles.answer))
    rows = zip(texts, _texts(puzzles.answer), puzzles.rating.tolist(), strict=True)
    for like, (question, answer, guesses) in zip(same, rows, strict=True):
        yield like, PuzzleRow(source, question, answer, guesses)


def _slow_unit(wanted: Wanted, number: int) -> Unit:
    seed = number << 31 | wanted.seed
    low, high = wanted.min_rating, wanted.max_rating
    most = SLOW_UNIT_ROWS[wanted.size]
    rows = generate_sudoku(Sudoku(wanted.box), most, seed, wanted.clues, low, high)
    made = 0
    try:
        for row in rows:
            yield row.question, row
            made += 1
    except DataError:
        if not made:
            raise


def _texts(boards: Boards) -> list[str]:
    symbols = np.frombuffer(("." + DIGITS).encode("ascii"), np.uint8)
    return [symbols[board].tobytes().decode("ascii") for board in boards]

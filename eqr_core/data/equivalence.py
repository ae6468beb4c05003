"""Splits that keep equivalent puzzles on one side.

At 9×9 puzzles whose solution grids are equivalent stay together. At 4×4 and 6×6, where there are
2 and 49 different grids, only equivalent puzzles do; at 16×16, of which no canonical form is
computed, only equal ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eqr_core.data.canonical import LARGEST, canonical_grids, canonical_puzzles, keys
from eqr_core.data.lanes import Boards
from eqr_core.data.packed import PackedPuzzles
from eqr_core.errors import DataError

MANY_GRIDS = 81
"""Cells from which solution grids can be kept apart."""


def digits(tokens: npt.NDArray[np.uint8]) -> Boards:
    """Digits of Sudoku tokens [rows, cells], 0 for a blank."""
    return tokens - 1


def grid_keys(puzzles: PackedPuzzles) -> npt.NDArray[np.bytes_] | None:
    """A key of each solution grid, equal where grids are equivalent; None at 16×16."""
    if puzzles.cells > LARGEST**2:
        return None
    return keys(canonical_grids(puzzles.box, digits(puzzles.answer)))


def puzzle_keys(puzzles: PackedPuzzles) -> npt.NDArray[np.bytes_] | None:
    """A key of each puzzle, equal where puzzles are equivalent; None at 16×16."""
    if puzzles.cells > LARGEST**2:
        return None
    return keys(canonical_puzzles(puzzles.box, digits(puzzles.question), digits(puzzles.answer)))


def split_apart(
    puzzles: PackedPuzzles, held_out: int, seed: int
) -> tuple[PackedPuzzles, PackedPuzzles]:
    """(training, held out): whole groups of like puzzles on either side, the file's order kept.

    Groups are drawn by `seed` until `held_out` rows are held out; a group that would be too many
    is passed over. DataError where no choice of groups tried fits.
    """
    if not 0 < held_out < len(puzzles):
        raise DataError(
            f"held_out is {held_out}; it must be from 1 to {len(puzzles) - 1}, one less than the "
            f"{len(puzzles)} puzzles"
        )
    names = grid_keys(puzzles) if puzzles.cells >= MANY_GRIDS else puzzle_keys(puzzles)
    names = keys(puzzles.question) if names is None else names
    _, group, size = np.unique(names, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(size), np.bool_)
    missing = held_out
    for number in np.random.default_rng(seed).permutation(len(size)):
        if size[number] <= missing:
            chosen[number] = True
            missing -= size[number]
        if not missing:
            break
    else:
        raise DataError(
            f"held_out is {held_out}; the {len(puzzles)} puzzles fall into {len(size)} groups of "
            f"like ones, up to {size.max()} in one, and those drawn leave {missing} rows short"
        )
    held = chosen[group]
    return puzzles.take((~held).nonzero()[0]), puzzles.take(held.nonzero()[0])


def without_relatives(puzzles: PackedPuzzles, held_out: PackedPuzzles) -> PackedPuzzles:
    """`puzzles` without those whose solution grid is equivalent to one of `held_out`.

    Below 9×9, where that would leave hardly any, and at 16×16 all stay.
    """
    mine, theirs = (
        (None, None) if puzzles.cells < MANY_GRIDS else (grid_keys(puzzles), grid_keys(held_out))
    )
    if mine is None or theirs is None:
        return puzzles
    return puzzles.take((~np.isin(mine, theirs)).nonzero()[0])

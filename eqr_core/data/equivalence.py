"""Splits that keep equivalent puzzles on one side.

What is equivalent, each task's form says (`form`). From 9×9 on, Sudokus whose solution grids are
equivalent stay together, and mazes whose walls are. Below, where there are few such grids, only
equivalent puzzles do; where no canonical form is computed, as at 16×16, only equal ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eqr_core.data.canonical import keys
from eqr_core.data.forms import form_of
from eqr_core.data.packed import PackedPuzzles
from eqr_core.errors import DataError

MANY_GRIDS = 81
"""Cells from which solution grids can be kept apart."""


def grid_keys(puzzles: PackedPuzzles) -> npt.NDArray[np.bytes_] | None:
    """A key of each one's solution grid or walls, equal where equivalent; None without a form."""
    form = form_of(puzzles.task.name)
    return form.grid_keys(puzzles.task, puzzles.question, puzzles.answer)


def puzzle_keys(puzzles: PackedPuzzles) -> npt.NDArray[np.bytes_] | None:
    """A key of each puzzle, equal where puzzles are equivalent; None without a canonical form."""
    form = form_of(puzzles.task.name)
    return form.puzzle_keys(puzzles.task, puzzles.question, puzzles.answer)


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
    """`puzzles` without those whose solution grid, or walls, are equivalent to one of `held_out`.

    Below 9×9, where that would leave hardly any, and without a canonical form all stay.
    """
    mine, theirs = (
        (None, None) if puzzles.cells < MANY_GRIDS else (grid_keys(puzzles), grid_keys(held_out))
    )
    if mine is None or theirs is None:
        return puzzles
    return puzzles.take((~np.isin(mine, theirs)).nonzero()[0])

"""The canonical form of Sudokus: equal for equivalent ones, different for all others.

Two Sudokus are equivalent where a symmetry (`symmetry.random_images` lists them) makes one of the
other. The form of a solution grid is its least image among those whose first two rows are in
normal form, that of a puzzle the least image of its clues among the symmetries which bring its
solution there. Few symmetries have to be tried:

- Two rows of a band are, up to the digits' names, a permutation p: the digit of column c in the
  second row stands in column p(c) of the first. An order q of the columns turns p into q p q⁻¹,
  so the normal form of two rows is the least member of p's conjugacy class under the orders that
  keep stacks together, and a table says which orders lead there.
- Of all ordered pairs of rows (and columns, where boxes are square) only those are taken whose
  class leads to the fewest images of this grid.
- First two rows, order of columns and names of digits fix the image; the other rows are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from eqr_core.data.lanes import Boards, Indices
from eqr_core.errors import DataError

CHUNK = 8192
"""Grids at work together, which bounds the memory."""

LARGEST = 9
"""Side of the largest grids; 16×16 has eight million orders of columns."""


@dataclass(frozen=True)
class _Classes:
    """The conjugacy classes of row pairs for one box shape."""

    orders: Indices
    """All orders of columns that keep stacks together, [orders, n]; order[new] = old column."""
    codes: Indices
    """The permutations that two rows of a band can be, as numbers, sorted [permutations]."""
    number: Indices
    """The class of each, [permutations]."""
    inverse: Indices
    """The place of each one's inverse, [permutations]."""
    first: Indices
    """Where each one's orders start in `ways`, [permutations]."""
    count: Indices
    """How many orders lead a class to its normal form, [classes]."""
    ways: Indices
    """Indices into `orders`, those of one permutation together."""


def canonical_grids(box: tuple[int, int], answers: Boards) -> Boards:
    """The canonical form of solved grids, uint8 [rows, cells]. DataError for 16×16."""
    return _canonical(box, answers, None)


def canonical_puzzles(box: tuple[int, int], questions: Boards, answers: Boards) -> Boards:
    """The canonical form of puzzles with one solution, uint8 [rows, cells], 0 for a blank.

    Two puzzles are equivalent where these are equal. DataError for 16×16.
    """
    return _canonical(box, answers, questions)


def keys(boards: Boards) -> npt.NDArray[np.bytes_]:
    """Each board as one value that can be compared, sorted and counted, bytes [rows]."""
    flat = np.ascontiguousarray(boards)
    return flat.view(f"S{flat.shape[1]}").reshape(len(flat))


def _canonical(box: tuple[int, int], answers: Boards, questions: Boards | None) -> Boards:
    if box[0] * box[1] > LARGEST:
        raise DataError(
            f"canonical forms go up to {LARGEST}x{LARGEST}; these grids have {answers.shape[1]} "
            "cells"
        )
    parts = [
        _chunk(box, answers[i : i + CHUNK], None if questions is None else questions[i : i + CHUNK])
        for i in range(0, len(answers), CHUNK)
    ]
    return np.concatenate(parts) if parts else answers.copy()


def _chunk(box: tuple[int, int], answers: Boards, questions: Boards | None) -> Boards:
    n = box[0] * box[1]
    grids = (answers.astype(np.intp) - 1).reshape(-1, n, n)
    clues = None if questions is None else (questions != 0).reshape(-1, n, n)
    if box[0] == box[1]:
        grids = np.stack([grids, grids.swapaxes(1, 2)], axis=1)
        clues = None if clues is None else np.stack([clues, clues.swapaxes(1, 2)], axis=1)
    else:
        grids = grids[:, None]
        clues = None if clues is None else clues[:, None]
    table = _classes(box)
    row, side, top, second, order = _candidates(box, table, grids)
    images = _images(box, grids[row, side], top, second, order)
    image = _gather(grids[row, side], images)
    names = np.empty((len(row), n), np.uint8)
    names[np.arange(len(row))[:, None], image[:, 0]] = np.arange(1, n + 1)
    form = np.take_along_axis(names, image.reshape(len(row), n * n), 1)
    if clues is None:
        return form[_least(row, form)]
    shown = _gather(clues[row, side], images).reshape(form.shape)
    # The clues decide between images of equal solutions: a clue before a blank, from the left.
    both = np.concatenate([form, ~shown], axis=1, dtype=np.uint8)
    best = _least(row, both)
    return np.where(shown[best], form[best], 0).astype(np.uint8)


def _candidates(
    box: tuple[int, int], table: _Classes, grids: Indices
) -> tuple[Indices, Indices, Indices, Indices, Indices]:
    """The images to compare: (grid, side, first row, second row, order of columns), [images]."""
    height, _ = box
    n = grids.shape[-1]
    pairs = [
        (band + i, band + j)
        for band in range(0, n, height)
        for i in range(height)
        for j in range(i + 1, height)
    ]
    upper, lower = (np.array(side) for side in zip(*pairs, strict=True))
    column = grids.argsort(axis=-1)  # the column of each digit
    moved = np.take_along_axis(column[:, :, upper], grids[:, :, lower], -1)
    powers = n ** np.arange(n)[::-1]
    place = table.codes.searchsorted(moved @ powers)
    both = np.stack([place, table.inverse[place]], axis=-1)  # [grids, sides, pairs, 2]
    number = table.number[both].reshape(len(grids), -1)
    present = np.zeros((len(grids), len(table.count)), np.intp)
    np.add.at(present, (np.arange(len(grids))[:, None], number), 1)
    cost = np.where(present == 0, np.iinfo(np.intp).max, present * table.count)
    chosen = cost.argmin(axis=1)
    taken = (number == chosen[:, None]).reshape(both.shape)
    row, side, pair, reverse = taken.nonzero()
    ways = table.count[chosen[row]]
    start = table.first[both[taken]]
    each = np.repeat(np.arange(len(row)), ways)
    offset = np.arange(len(each)) - np.repeat(ways.cumsum() - ways, ways)
    order = table.ways[start[each] + offset]
    first = np.where(reverse == 0, upper[pair], lower[pair])
    second = np.where(reverse == 0, lower[pair], upper[pair])
    return row[each], side[each], first[each], second[each], order


def _images(
    box: tuple[int, int], grids: Indices, top: Indices, second: Indices, order: Indices
) -> tuple[Indices, Indices]:
    """(Rows, columns) of the images of `grids` in their new order, [images, n] each."""
    height, _ = box
    count, n = grids.shape[:2]
    each = np.arange(count)
    columns = _classes(box).orders[order]
    # The digits' new names are their columns in the top row, so a row's first entry is known.
    head = grids[each, :, columns[:, 0]]
    names = np.empty((count, n), np.intp)
    names[each[:, None], np.take_along_axis(grids[each, top], columns, 1)] = np.arange(n)
    head = np.take_along_axis(names, head, 1)
    head[each, top] = -2
    head[each, second] = -1
    bands = head.reshape(count, n // height, height)
    within = bands.argsort(axis=2)
    bands_order = bands.min(axis=2).argsort(axis=1)
    rows = (bands_order[:, :, None] * height + within[each[:, None], bands_order]).reshape(count, n)
    return rows, columns


def _gather(grids: npt.NDArray[Any], image: tuple[Indices, Indices]) -> npt.NDArray[Any]:
    rows, columns = image
    return grids[np.arange(len(grids))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _least(row: Indices, forms: Boards) -> Indices:
    """For each grid the index of its least form; `row` says whose each is, ascending."""
    first = np.flatnonzero(np.diff(row, prepend=-1))
    if len(first) == len(row):
        return first
    spare = -forms.shape[1] % 8
    words = np.pad(forms, ((0, 0), (0, spare))).view(">u8").astype(np.uint64)
    return np.lexsort((*words.T[::-1], row))[first]


@lru_cache(maxsize=4)
def _classes(box: tuple[int, int]) -> _Classes:
    height, width = box
    n, stacks = height * width, height
    orders = np.array(
        sorted(
            [stack * width + i for stack, inner in zip(outer, inners, strict=True) for i in inner]
            for outer in permutations(range(stacks))
            for inners in product(permutations(range(width)), repeat=stacks)
        )
    )
    powers = n ** np.arange(n)[::-1]
    back = orders.argsort(axis=1)
    inverse_order = (orders @ powers).searchsorted(back @ powers)
    every = np.array(list(permutations(range(n))))
    stack_of = np.arange(n) // width
    every = every[(stack_of[every] != stack_of).all(axis=1)]
    codes = every @ powers
    number = np.full(len(every), -1)
    ways: list[Indices] = [inverse_order] * len(every)
    counts: list[int] = []
    for least in range(len(every)):
        if number[least] >= 0:
            continue
        images = np.take_along_axis(back, every[least][orders], 1)
        place = codes.searchsorted(images @ powers)
        sorting = place.argsort(kind="stable")
        members, starts = np.unique(place[sorting], return_index=True)
        number[members] = len(counts)
        counts.append(len(orders) // len(members))
        for member, group in zip(members, np.split(sorting, starts[1:]), strict=True):
            ways[member] = inverse_order[group]
    lengths = np.array([len(group) for group in ways])
    return _Classes(
        orders=orders,
        codes=codes,
        number=number,
        inverse=codes.searchsorted(every.argsort(axis=1) @ powers),
        first=lengths.cumsum() - lengths,
        count=np.array(counts),
        ways=np.concatenate(ways),
    )

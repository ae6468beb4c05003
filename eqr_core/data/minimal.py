"""Random minimal puzzles, many at once: clues until there is one solution, then none to spare."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eqr_core.data.lanes import Boards, Indices, search
from eqr_core.data.symmetry import Rng, orders, random_images

SHOWN = 0.27
"""Share of a random full board's cells that a puzzle begins with: a 9×9 then has some thousand
solutions, and the clues that follow choose among them."""


def random_puzzles(box: tuple[int, int], count: int, random: Rng) -> tuple[Boards, Boards]:
    """`count` random minimal puzzles and their solutions, uint8 [count, cells] each.

    The procedure does not sample uniformly from all minimal puzzles.
    """
    full = _full_boards(box, count, random)
    start = np.where(random.random(full.shape) < SHOWN, full, 0).astype(np.uint8)
    _, boards, answers = complete(box, start, random)
    return minimise(box, boards, answers, random), answers


def complete(
    box: tuple[int, int], boards: Boards, random: Rng, solutions: int = 2, ways: int = 1
) -> tuple[Indices, Boards, Boards]:
    """Add clues to `boards`, which have solutions, until each has one.

    Returns for each result the row of `boards` that it comes from, the puzzle and its solution.
    Up to `solutions` solutions are looked for. Where these are all and some clues occur in only
    one of them, up to `ways` such clues are tried, each a result of its own; else a clue that the
    fewest share is added, and the search goes on. Which solutions are found depends on the
    orientation and the digits' names; give random images.
    """
    n = box[0] * box[1]
    boards = boards.copy()
    rows = np.arange(len(boards))
    results = []
    while True:
        found = search(box, boards[rows], limit=solutions)
        one = found.count == 1
        results.append((rows[one], boards[rows[one]], found.solutions[one, 0]))
        rows, several, known = rows[~one], found.solutions[~one], found.count[~one] < solutions
        if not rows.size:
            row, puzzles, answers = (np.concatenate(part) for part in zip(*results, strict=True))
            return row, puzzles, answers
        clues = several[:, :, :, None] == np.arange(1, n + 1, dtype=np.uint8)
        shared = clues.sum(axis=1, dtype=np.uint8).reshape(len(rows), -1)
        shared[shared == 0] = np.iinfo(np.uint8).max
        least = shared.min(axis=1)
        chance = np.where(shared == least[:, None], random.random(shared.shape), -1)
        last = known & (least == 1)
        result, clue = _highest(chance[last], ways)
        cell, digit = np.divmod(clue, n)
        tried = boards[rows[last][result]]
        tried[np.arange(len(result)), cell] = digit + 1
        which = (several[last][result, :, cell] == digit[:, None] + 1).argmax(axis=1)
        results.append((rows[last][result], tried, several[last][result, which]))
        rows = rows[~last]
        cell, digit = np.divmod(chance[~last].argmax(axis=1), n)
        boards[rows, cell] = digit + 1


def minimise(box: tuple[int, int], boards: Boards, answers: Boards, random: Rng) -> Boards:
    """Take clues away in random order while `answers` stay the only solutions.

    A clue that cannot go now can never go, so each round tests only what could go before.
    """
    boards = boards.copy()
    order = orders(random, *boards.shape)
    row, cell = boards.nonzero()
    spare = np.zeros(boards.shape, np.bool_)
    spare[row, cell] = _can_go(box, boards, answers, row, cell)
    tested = True  # the first clue of each puzzle has just been, on this very puzzle
    while True:
        row = np.flatnonzero(spare.any(axis=1))
        if not row.size:
            return boards
        cell = np.where(spare[row], order[row], boards.shape[1]).argmin(axis=1)
        go = np.ones(len(row), np.bool_) if tested else _can_go(box, boards, answers, row, cell)
        boards[row[go], cell[go]] = 0
        spare[row, cell] = False
        tested = False


def _highest(chance: npt.NDArray[np.float64], most: int) -> tuple[Indices, Indices]:
    """(Row, column) of the `most` highest values of each row, of those that are not negative."""
    columns = chance.argsort(axis=1)[:, ::-1][:, :most]
    row, place = np.nonzero(np.take_along_axis(chance, columns, 1) >= 0)
    return row, columns[row, place]


def _can_go(
    box: tuple[int, int], boards: Boards, answers: Boards, row: Indices, cell: Indices
) -> npt.NDArray[np.bool_]:
    """Whether puzzle row[i] keeps its only solution without its clue at cell[i], bool [tests]."""
    tried = boards[row]
    tried[np.arange(len(row)), cell] = 0
    found = search(box, tried, limit=1, but=(cell, answers[row, cell].astype(np.intp)))
    gone: npt.NDArray[np.bool_] = found.count == 0
    return gone


def _full_boards(box: tuple[int, int], count: int, random: Rng) -> Boards:
    """Random full boards: random boxes that share no unit, the rest searched, a random image."""
    height, width = box
    n = height * width
    boards = np.zeros((count, n, n), np.uint8)
    for i in range(min(n // height, n // width)):
        digits = orders(random, count, n).reshape(count, height, width) + 1
        boards[:, i * height : (i + 1) * height, i * width : (i + 1) * width] = digits
    found = search(box, boards.reshape(count, n * n), limit=1)
    (full,) = random_images(box, random, found.solutions[:, 0])
    return full

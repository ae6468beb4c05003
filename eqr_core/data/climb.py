"""Hill climbing to Sudokus that need many guesses, a pool of puzzles at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from eqr_core.data.lanes import Boards, search
from eqr_core.data.minimal import complete, minimise, random_puzzles
from eqr_core.data.symmetry import Rng, orders, random_images

IMAGES = 3
"""Images of a puzzle over which its guesses are averaged: one alone is luck."""

DROPS = (0.95, 0.98, 0.99)
"""Chances that a step drops at most 1, 2, 3 clues; 4 at most."""

SOLUTIONS, WAYS = 24, 8
"""Solutions looked for after the drop, and last clues tried of those that leave one."""

ENOUGH = 4
"""A puzzle whose proof takes so many times the guesses wanted is as good as a harder one: about
half of the guesses of a proof come before the solution, and images differ by a factor of two."""

PATIENCE = 40
"""Steps without a better puzzle after which a climb ends."""


@dataclass(frozen=True)
class Rated:
    """Puzzles with one solution, as they are written and rated."""

    question: Boards
    answer: Boards
    rating: npt.NDArray[np.int32]
    """Guesses until the solution is found, int32 [rows]."""
    mean_rating: npt.NDArray[np.float64]
    """The same over images of the puzzle, this one among them; geometric mean, of 1 + guesses."""
    effort: npt.NDArray[np.float64]
    """Such a mean of the guesses that it takes to show that there is no other solution."""

    def take(self, rows: npt.NDArray[np.generic]) -> Rated:
        """The puzzles at the indices `rows`, or those that the flags `rows` mark."""
        return Rated(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.question)


def rate(box: tuple[int, int], question: Boards, answer: Boards, random: Rng) -> Rated:
    """Replace puzzles by random images of them, and rate these."""
    images = [random_images(box, random, question, answer) for _ in range(IMAGES)]
    found = search(box, np.concatenate([image[0] for image in images]))
    ratings = found.rating.reshape(IMAGES, -1)
    efforts = found.guesses.reshape(IMAGES, -1)
    question, answer = images[0]
    return Rated(question, answer, ratings[0], _mean(ratings), _mean(efforts))


def climb(
    box: tuple[int, int], size: int, steps: int, least: int, most: int | None, random: Rng
) -> Iterator[Rated]:
    """Rated puzzles: a pool of `size` random ones, then what each of `steps` steps makes of it.

    A step drops 1 to 4 clues of each puzzle of the pool, adds clues until there is one solution
    (several such, of which the one with most guesses is kept), and minimises. The pool keeps the
    best of old and new: those that take most guesses, and newer ones before older where both take
    enough for the rating `least`. Puzzles whose mean rating is above `most` leave it. The climb
    ends early where `PATIENCE` steps bring nothing better.
    """
    pool = rate(box, *random_puzzles(box, size, random), random)
    yield pool
    best, since = 0.0, 0
    for _ in range(steps):
        new = _step(box, pool, random)
        yield new
        both = Rated(
            *(np.concatenate([getattr(x, f.name) for x in (new, pool)]) for f in fields(Rated))
        )
        worth = np.minimum(both.effort, ENOUGH * least)
        if most is not None:
            worth = np.where(both.mean_rating > most, -1.0, worth)
        pool = both.take((-worth).argsort(kind="stable")[:size])
        total = float(np.maximum(worth, 0).max() + pool.effort.clip(0, ENOUGH * least).mean())
        best, since = (total, 0) if total > best else (best, since + 1)
        if since == PATIENCE:
            return


def _step(box: tuple[int, int], pool: Rated, random: Rng) -> Rated:
    fewer = _drop(pool.question, random)
    row, question, answer = complete(box, fewer, random, SOLUTIONS, WAYS)
    order = np.lexsort((-search(box, question).guesses, row))
    best = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    question, answer = question[best], answer[best]
    return rate(box, minimise(box, question, answer, random), answer, random)


def _drop(boards: Boards, random: Rng) -> Boards:
    count = 1 + np.searchsorted(DROPS, random.random(len(boards)))
    order = np.where(boards != 0, orders(random, *boards.shape), boards.shape[1])
    drop = order.argsort(axis=1)[:, : len(DROPS) + 1]
    fewer = boards.copy()
    for k in range(drop.shape[1]):
        rows = (count > k).nonzero()[0]
        fewer[rows, drop[rows, k]] = 0
    return fewer


def _mean(guesses: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    mean: npt.NDArray[np.float64] = np.expm1(np.log1p(guesses).mean(axis=0))
    return mean

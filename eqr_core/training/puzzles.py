"""Puzzles of one size for training: where they come from, and how a sample is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from eqr_core.data.augmentation import random_images
from eqr_core.data.equivalence import without_relatives
from eqr_core.data.forms import form_of
from eqr_core.data.packed import PackedPuzzles, pack, read_packed
from eqr_core.errors import DataError
from eqr_core.tasks.base import Task
from eqr_core.training.recipe import Recipe, SizeMix, task_of_size

Report = Callable[[str], None]

HELD_OUT = 2**20
"""Added to the recipe's seed for puzzles that only validate."""

LEAST_PUZZLES = 5
"""Of one size: one held out, four to train on."""


@dataclass(frozen=True)
class TrainingSet:
    """Training and validation puzzles of one size.

    No question is in both. From 81 cells on no solution grid (of a Sudoku) and no walls (of a
    maze) of one are an image of those of the other under the task's symmetries; at smaller sizes
    an image of a training puzzle may be held out, as with 4×4, of which there are few classes.
    """

    mix: SizeMix
    task: Task
    question: Tensor
    """Tokens, uint8 [puzzles, tokens]."""
    answer: Tensor
    order: Tensor
    """The rows in order of their pool (source), int64 [puzzles that may be drawn]."""
    pool_first: Tensor
    """Where each pool begins in `order`, int64 [pools]."""
    pool_size: Tensor
    pool_shares: Tensor
    """Relative probability of each pool, float32 [pools]."""
    validation: PackedPuzzles
    augment: bool
    digest: str
    """Of the whole set, as read or generated."""

    def draw(self, count: int, reveal: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """`count` random (question, answer) rows, uint8 [count, tokens].

        Each question has a random share, at most `reveal`, of its solution cells filled in.
        """
        device = generator.device
        pool = torch.multinomial(self.pool_shares, count, replacement=True, generator=generator)
        place = torch.rand(count, generator=generator, dtype=torch.float64, device=device)
        rows = self.order[self.pool_first[pool] + (place * self.pool_size[pool]).long()]
        question, answer = self.question[rows], self.answer[rows]
        if self.augment:
            question, answer = random_images(self.task, question, answer, generator)
        if reveal > 0:
            share = reveal * torch.rand(count, 1, generator=generator, device=device)
            shown = torch.rand(answer.shape, generator=generator, device=device) < share
            question = torch.where(shown, answer, question)
        return question, answer

    def to(self, device: torch.device) -> TrainingSet:
        """The set with what is drawn from on `device`."""
        names = ("question", "answer", "order", "pool_first", "pool_size", "pool_shares")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def open_puzzles(recipe: Recipe, files: Sequence[Path], report: Report) -> list[TrainingSet]:
    """One set for each size of the recipe, from `files` or else generated. DataError."""
    given = [(path, read_packed(path)) for path in files]
    sets = []
    for mix in recipe.puzzles:
        task = task_of_size(recipe.operator.task, mix.size)
        found = [puzzles for _, puzzles in given if puzzles.task == task]
        if len(found) > 1:
            raise DataError(f"{len(found)} data files hold {mix.size} puzzles; give one a size")
        if not found:
            report(f"generating {mix.generate} puzzles of {mix.size}")
        puzzles = found[0] if found else _generate(task, mix.generate, recipe.seed, mix.options)
        sets.append(_training_set(recipe, mix, task, puzzles, generated=not found))
    wanted = {one.task for one in sets}
    for path, puzzles in given:
        if puzzles.task not in wanted:
            raise DataError(
                f"{path}: {puzzles.task.name} of {puzzles.task.size}; the recipe {recipe.name} has "
                f"{', '.join(mix.size for mix in recipe.puzzles)}"
            )
    return sets


def _training_set(
    recipe: Recipe, mix: SizeMix, task: Task, puzzles: PackedPuzzles, *, generated: bool
) -> TrainingSet:
    _, first = np.unique(puzzles.question, axis=0, return_index=True)
    distinct = puzzles.take(np.sort(first))
    if len(distinct) < LEAST_PUZZLES:
        raise DataError(
            f"{len(distinct)} different puzzles of {mix.size}; it takes {LEAST_PUZZLES} at least"
        )
    rest, held_out = distinct.split(min(recipe.validation_rows, len(distinct) // 5), 0)
    train = without_relatives(rest, held_out)
    if not len(train):
        raise DataError(
            f"all {len(rest)} other puzzles of {mix.size} have the solution grid of one held out"
        )
    pools, shares = _pools(train, {} if generated else mix.sources, mix.size)
    sizes = torch.tensor([len(pool) for pool in pools])
    return TrainingSet(
        mix=mix,
        task=task,
        question=torch.from_numpy(train.question),
        answer=torch.from_numpy(train.answer),
        order=torch.cat(pools),
        pool_first=sizes.cumsum(0) - sizes,
        pool_size=sizes,
        pool_shares=shares,
        validation=held_out,
        augment=recipe.augment,
        digest=puzzles.digest,
    )


def _pools(
    puzzles: PackedPuzzles, shares: dict[str, float], size: str
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The rows of each source that has a share, and the shares; without any, one pool of all."""
    if not shares:
        return (torch.arange(len(puzzles)),), torch.ones(1)
    if unknown := sorted(set(shares) - set(puzzles.sources)):
        raise DataError(
            f"puzzles of {size}: sources.{unknown[0]} is not in the data file, which has "
            f"{', '.join(puzzles.sources)}"
        )
    numbers = {name: number for number, name in enumerate(puzzles.sources)}
    pools = [torch.from_numpy((puzzles.source == numbers[name]).nonzero()[0]) for name in shares]
    kept = [(pool, share) for pool, share in zip(pools, shares.values(), strict=True) if len(pool)]
    if not kept:
        raise DataError(
            f"puzzles of {size}: no row of {', '.join(shares)} is left to train on; "
            "validation holds them all out"
        )
    return tuple(pool for pool, _ in kept), torch.tensor([share for _, share in kept])


def held_out_puzzles(recipe: Recipe, report: Report) -> list[PackedPuzzles]:
    """The puzzles of each of the recipe's `held_out`, generated. DataError."""
    found = []
    for one in recipe.held_out:
        report(f"generating {one.rows} puzzles of {one.size} to hold out")
        task = task_of_size(recipe.operator.task, one.size)
        found.append(_generate(task, one.rows, recipe.seed + HELD_OUT, one.generator))
    return found


def _generate(task: Task, count: int, seed: int, options: dict[str, Any]) -> PackedPuzzles:
    return pack(form_of(task.name).generate(task, count, seed, options))

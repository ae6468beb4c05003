"""Puzzles of one size for training: where they come from, and how a sample is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from eqr_core.data import packed
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.packed import PackedPuzzles, pack
from eqr_core.errors import DataError, RecipeError
from eqr_core.tasks import task_at
from eqr_core.tasks.base import Task
from eqr_core.tasks.sudoku import Sudoku
from eqr_core.training.recipe import Puzzles, Recipe

Report = Callable[[str], None]
GENERATED_VALIDATION_SEED = 1


@dataclass(frozen=True)
class Source:
    """Training and validation puzzles of one size; no puzzle is in both."""

    mix: Puzzles
    task: Task
    question: Tensor
    """Tokens, uint8 [puzzles, tokens]."""
    answer: Tensor
    pools: tuple[Tensor, ...]
    """Rows to draw from, int64 each."""
    pool_shares: Tensor
    """Probability of each pool, float32 [pools]."""
    validation: PackedPuzzles
    digest: str

    def draw(self, count: int, reveal: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """`count` random (question, answer) rows, uint8 [count, tokens].

        Each question has a random share, at most `reveal`, of its solution cells filled in.
        """
        pool = torch.multinomial(self.pool_shares, count, replacement=True, generator=generator)
        place = torch.rand(count, generator=generator)
        rows = torch.stack(
            [
                self.pools[k][int(p * len(self.pools[k]))]
                for k, p in zip(pool.tolist(), place.tolist(), strict=True)
            ]
        )
        question, answer = self.question[rows], self.answer[rows]
        if reveal > 0:
            share = reveal * torch.rand(count, 1, generator=generator)
            shown = torch.rand(answer.shape, generator=generator) < share
            question = torch.where(shown, answer, question)
        return question, answer


def open_sources(recipe: Recipe, files: Sequence[Path], report: Report) -> list[Source]:
    """One source for each size of the recipe, from `files` or else generated."""
    given = [packed.read_packed(path) for path in files]
    sources = []
    for mix in recipe.puzzles:
        task = _task(recipe.operator.task, mix.size)
        found = [puzzles for puzzles in given if puzzles.cells == task.tokens]
        if len(found) > 1:
            raise DataError(f"{len(found)} data files hold {mix.size} puzzles; give one a size")
        puzzles = found[0] if found else _generate(recipe, mix, task, report)
        train, validation = puzzles.split(min(recipe.validation_rows, len(puzzles) // 5), 0)
        sources.append(
            Source(
                mix,
                task,
                torch.from_numpy(train.question),
                torch.from_numpy(train.answer),
                *_pools(train, mix.sources),
                validation,
                puzzles.digest,
            )
        )
    unused = {p.cells for p in given} - {source.task.tokens for source in sources}
    if unused:
        raise DataError(f"a data file holds grids of {min(unused)} cells; the recipe has no such")
    return sources


def _pools(puzzles: PackedPuzzles, shares: dict[str, float]) -> tuple[tuple[Tensor, ...], Tensor]:
    """The rows of each source with a share, and the shares; one pool of all where none has."""
    pools, weights = [], []
    for number, name in enumerate(puzzles.sources):
        rows = torch.from_numpy((puzzles.source == number).nonzero()[0])
        if shares.get(name, 0.0) > 0 and len(rows):
            pools.append(rows)
            weights.append(shares[name])
    if not pools:
        return (torch.arange(len(puzzles)),), torch.ones(1)
    return tuple(pools), torch.tensor(weights)


def _task(name: str, size: str) -> Task:
    rows, _, columns = size.partition("x")
    if not (rows.isdigit() and columns.isdigit()):
        raise RecipeError(f"puzzles.size is {size!r}; it must read like 9x9")
    return task_at(name, int(rows), int(columns))


def _generate(recipe: Recipe, mix: Puzzles, task: Task, report: Report) -> PackedPuzzles:
    if not isinstance(task, Sudoku):
        raise DataError(f"no generator for {task.name}; give a data file")
    report(f"generating {mix.generate} puzzles of {mix.size}")
    return pack(generate_sudoku(task, mix.generate, recipe.seed, mix.clues))

"""Random images of puzzles under their task's symmetries (REFERENCE, Training: augmentation)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from eqr_core.data.maze_symmetry import exchanged, places
from eqr_core.errors import DataError
from eqr_core.tasks.base import Task
from eqr_core.tasks.maze import Maze
from eqr_core.tasks.sudoku import Sudoku


def random_images(
    task: Task, question: Tensor, answer: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Each row under a random symmetry of its own, the same for question and answer.

    Tokens uint8 [rows, tokens], on the generator's device. DataError where the task has none.
    """
    if isinstance(task, Sudoku):
        return _sudokus(task, question, answer, generator)
    if isinstance(task, Maze):
        return _mazes(task, question, answer, generator)
    raise DataError(f"no augmentation for {task.name}")


def _sudokus(
    task: Sudoku, question: Tensor, answer: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Digits, bands, rows within a band, stacks and columns within a stack are permuted,
    and half of the grids transposed where boxes are square.
    """
    height, width = task.box
    n, count, device = task.n, len(question), question.device
    rows = _line_order(count, n // height, height, generator, device)
    columns = _line_order(count, n // width, width, generator, device)
    cells = rows[:, :, None] * n + columns[:, None, :]
    if height == width:
        turned = torch.rand(count, 1, 1, generator=generator, device=device) < 0.5
        cells = torch.where(turned, cells.transpose(1, 2), cells)
    cells = cells.flatten(1)
    digits = torch.rand(count, n, generator=generator, device=device).argsort(1)
    first = task.first_value_token
    below = torch.arange(first, device=device).expand(count, first)
    renamed = torch.cat([below, digits + first], dim=1).to(torch.uint8)
    return tuple(  # type: ignore[return-value]
        renamed.gather(1, tokens.gather(1, cells).long()) for tokens in (question, answer)
    )


def _mazes(
    task: Maze, question: Tensor, answer: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Turned and reflected as the shape allows; in half of the mazes S and G change places."""
    count, device = len(question), question.device
    orders = torch.from_numpy(np.stack(list(places(task.rows, task.columns)))).to(device)
    order = orders[torch.randint(len(orders), (count,), generator=generator, device=device)]
    swap = torch.rand(count, 1, generator=generator, device=device) < 0.5
    other = torch.from_numpy(exchanged()).to(device)
    return tuple(  # type: ignore[return-value]
        torch.where(swap, other[image.long()], image)
        for image in (tokens.gather(1, order) for tokens in (question, answer))
    )


def _line_order(
    count: int, groups: int, size: int, generator: Generator, device: torch.device
) -> Tensor:
    """Lines in an order that keeps each group of neighbours together, [count, groups · size]."""
    group = torch.rand(count, groups, generator=generator, device=device).argsort(1)
    within = torch.rand(count, groups, size, generator=generator, device=device).argsort(2)
    return (group[..., None] * size + within).flatten(1)

"""The puzzles that every contender solves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import DataError, ModelError
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.rows import Puzzle, parse_rows
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import build_operator, find_checkpoint, load_checkpoint
from eqr_core.model.operator import Operator
from eqr_core.model.sizes import fits
from eqr_core.tasks.base import Grid, Task


@dataclass(frozen=True)
class Workload:
    """Puzzles of one size and the checkpoint that solves them. Puzzle i takes the seed i."""

    checkpoint: Path
    card: Card
    operator: Operator
    rows: tuple[PuzzleRow, ...]
    puzzles: tuple[Puzzle, ...]

    @staticmethod
    def of(model: str, rows: Iterable[PuzzleRow]) -> Workload:
        """DataError for puzzles of several sizes, ModelError where the model does not fit."""
        rows = tuple(rows)
        puzzles = parse_rows(rows)
        sizes = list(dict.fromkeys(puzzle.task.size for puzzle in puzzles))
        if len(sizes) > 1:
            raise DataError(f"the puzzles are {' and '.join(sizes)}; a benchmark takes one size")
        checkpoint = find_checkpoint(model)
        weights, card = load_checkpoint(checkpoint)
        task = puzzles[0].task
        if task.name != card.task or not fits(card.sizes, task.size):
            raise ModelError(
                f"{card.name} solves {card.task} {', '.join(card.sizes)}, "
                f"not {task.name} {sizes[0]}"
            )
        operator = build_operator(weights, card, task).requires_grad_(False)
        return Workload(checkpoint, card, operator, rows, tuple(puzzles))

    @property
    def task(self) -> Task:
        """The task of all puzzles."""
        return self.puzzles[0].task

    def ratings(self) -> dict[str, int]:
        """Puzzles of each difficulty class."""
        classes = RatingClasses(self.task.rating_edges)
        counts = Counter(classes.name(puzzle.rating) for puzzle in self.puzzles)
        return {name: counts[name] for name in classes.names if counts[name]}

    def accuracy(self, grids: Sequence[Grid]) -> float:
        """Share of `grids`, one for each puzzle, with every cell right."""
        right = (grid == p.answer for grid, p in zip(grids, self.puzzles, strict=True))
        return sum(right) / len(self.puzzles)

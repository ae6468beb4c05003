"""A few puzzles of an evaluation with the answers that it was given, depth by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.engine.runner import arithmetic
from eqr_core.engine.selection import Selection
from eqr_core.evaluation.rows import Puzzle, digest_rows, parse_rows
from eqr_core.evaluation.stepper import Stepper
from eqr_core.evaluation.sweep import Settings, Sweep
from eqr_core.model.checkpoint import find_checkpoint, load_checkpoint
from eqr_core.tasks.base import Grid

DEPTHS = (1, 4, 16, 64)
"""Depths that are shown beside the largest one of the sweep, as far as they are less."""


@dataclass(frozen=True)
class Example:
    """A puzzle of a file and what it was answered."""

    row: int
    puzzle: Puzzle
    answers: tuple[tuple[int, Grid], ...]
    """(Depth, answer), from the least depth."""


def show(
    model: str | Path,
    rows: Sequence[PuzzleRow],
    sweep: Sweep,
    chosen: Sequence[int],
    *,
    seed: int = 0,
    noise: float = 0.0,
    selection: Selection = "residual",
    compiled: bool = False,
) -> tuple[Example, ...]:
    """Solve the rows `chosen` again as `evaluate` did, and keep the answers.

    They are those under the sweep's largest breadth and first stop, at some depths of DEPTHS and
    the largest one.
    """
    weights, card = load_checkpoint(find_checkpoint(str(model)))
    depths = (*(depth for depth in DEPTHS if depth < sweep.depth), sweep.depth)
    settings = Settings(
        digest=card.digest,
        data_digest=digest_rows(rows),
        rows=len(rows),
        sweep=replace(sweep, depths=depths, breadths=(sweep.breadth,), stops=sweep.stops[:1]),
        tolerance=card.tolerance if sweep.tolerance is None else sweep.tolerance,
        seed=seed,
        noise=noise,
        selection=selection,
        arithmetic=arithmetic(card.operator, compiled),
    )
    stepper = Stepper(weights, card, settings, sweep.breadth)
    examples = []
    for row in chosen:
        (puzzle,) = parse_rows([rows[row]], row)
        answers = zip(depths, stepper.answers(row, puzzle), strict=True)
        examples.append(Example(row, puzzle, tuple(answers)))
    return tuple(examples)

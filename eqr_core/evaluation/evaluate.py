"""Measure a checkpoint on puzzles: one budget, or a sweep of them on shared trajectories."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import check_whole
from eqr_core.engine.runner import arithmetic
from eqr_core.engine.selection import Selection
from eqr_core.errors import DataError, ModelError
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.report import Subject
from eqr_core.evaluation.rows import digest_rows, parse_rows
from eqr_core.evaluation.store import Store
from eqr_core.evaluation.summary import Evaluation, Summary
from eqr_core.evaluation.sweep import Settings, Sweep
from eqr_core.evaluation.workers import Job, compute
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import check_sizes, find_checkpoint, read_card
from eqr_core.model.sizes import fits

MAX_WORKERS = 256
OnRows = Callable[[int, int | None], None]


def evaluate(
    model: str | Path,
    rows: Sequence[PuzzleRow],
    sweep: Sweep,
    *,
    data: str = "",
    seed: int = 0,
    noise: float = 0.0,
    selection: Selection = "residual",
    slots: int = 64,
    compiled: bool = False,
    workers: int = 1,
    folder: Path | None = None,
    on_rows: OnRows = lambda count, right: None,
) -> Evaluation:
    """Solve every row with every budget of `sweep` and count.

    Row i (from 0) is solved with the seed `seed` + i, so that rows start from independent
    states and each can be run again alone. Every cell is exactly what the engine answers under
    that budget alone, with slots enough for all its trajectories.

    With `folder` the parts that are done stay there, and the same call goes on from them;
    DataError where it holds another evaluation. `workers` processes compute, each with one
    thread; neither they nor `slots` have a part in the result. `on_rows` is called first with
    the puzzles that are done from before and None, then with those done since the last call and
    how many of them the largest cell has right.

    DataError for rows that cannot be parsed, ModelError where the model does not fit one,
    BudgetError for a value outside its limits, EqrError when a worker dies.
    """
    check_whole("workers", workers, 1, MAX_WORKERS)
    check_whole("slots", slots, 1, 4096)
    checkpoint = find_checkpoint(str(model))
    card = read_card(checkpoint)
    check_sizes(card)
    subjects, ratings = _check(rows, card)
    _check_request(rows, sweep, seed, noise, selection)
    settings = Settings(
        digest=card.digest,
        data_digest=digest_rows(rows),
        rows=len(rows),
        sweep=sweep,
        tolerance=card.tolerance if sweep.tolerance is None else sweep.tolerance,
        seed=seed,
        noise=noise,
        selection=selection,
        arithmetic=arithmetic(card.operator, compiled),
    )
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqr-eval-")))
        store = Store(folder, settings)
        missing = store.missing()
        on_rows(len(rows) - sum(map(len, missing)), None)
        job = Job(checkpoint, settings, folder, slots)
        compute(job, rows, missing, workers, lambda right: on_rows(1, right))
        summary = Summary(settings, card.name, data, ratings)
        for chunk, part in store.read():
            summary.add(chunk.start, subjects[chunk.start : chunk.stop], part)
    return summary.result()


def _check(rows: Sequence[PuzzleRow], card: Card) -> tuple[list[Subject], RatingClasses]:
    """Parse every row once, before hours of work, and keep what the tables need."""
    if not rows:
        raise DataError("there are no puzzles to evaluate")
    subjects = []
    for number, row in enumerate(rows):
        (puzzle,) = parse_rows([row], number)
        task = puzzle.task
        if task.name != card.task or not fits(card.sizes, task.size):
            raise ModelError(
                f"{card.name} solves {card.task} {', '.join(card.sizes)}; puzzle {number + 1} is "
                f"{task.name} {task.size}"
            )
        subjects.append(Subject(row.source, row.rating, task.rows, task.columns))
    return subjects, RatingClasses(task.rating_edges)


def _check_request(
    rows: Sequence[PuzzleRow], sweep: Sweep, seed: int, noise: float, selection: Selection
) -> None:
    """BudgetError where a seed, the noise or the selection is outside its limits."""
    (puzzle,) = parse_rows(rows[:1])
    for last in (seed, seed + len(rows) - 1):
        SolveRequest(puzzle.task, puzzle.grid, "", sweep.budgets[0], last, noise, selection)

"""Measure a checkpoint on a puzzle file, through the engine that serves it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow, read_puzzles
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.selection import Selection
from eqr_core.errors import DataError, GridError, ModelError
from eqr_core.evaluation.report import Puzzle, Report, Tally
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import read_card, update_card
from eqr_core.tasks import parse_grid


def read_rows(path: Path, limit: int | None = None) -> list[PuzzleRow]:
    """The first `limit` rows of a puzzle file, all without; DataError where there are none."""
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    rows = list(read_puzzles(path, limit))
    if not rows:
        raise DataError(f"{path}: there are no puzzles in it")
    return rows


def parse_rows(rows: Iterable[PuzzleRow]) -> list[Puzzle]:
    """Parse rows; DataError names the first whose answer does not solve its question."""
    puzzles = []
    for number, row in enumerate(rows, start=1):
        try:
            task, grid = parse_grid(row.question)
            answer_task, answer = parse_grid(row.answer, task.name)
        except GridError as error:
            raise DataError(f"puzzle {number}: {error}") from None
        if answer_task != task or not task.verify(grid, answer):
            raise DataError(f"puzzle {number}: its answer does not solve its question")
        puzzles.append(Puzzle(task, grid, answer, row.source, row.rating))
    return puzzles


def evaluate(
    engine: Engine,
    rows: Sequence[PuzzleRow],
    budget: Budget,
    *,
    model: str | None = None,
    data: str = "",
    seed: int = 0,
    noise: float = 0.0,
    selection: Selection = "residual",
    on_answer: Callable[[bool], None] | None = None,
) -> Report:
    """Solve every row with `budget` and count.

    Row i (from 0) is solved with the seed `seed` + i, so that rows start from independent
    states and each can be run again alone. `on_answer` is called with each puzzle's outcome.
    Without `model` the engine chooses one, which must then be the same for all rows.
    DataError for rows that cannot be parsed, ModelError where the model does not fit one.
    """
    puzzles = parse_rows(rows)
    if not puzzles:
        raise DataError("there are no puzzles to evaluate")
    names = {engine.choose_model(puzzle.task, model) for puzzle in puzzles}
    if len(names) > 1:
        raise ModelError(f"the rows need several models ({', '.join(sorted(names))}); name one")
    (name,) = names
    requests = [
        SolveRequest(
            task=puzzle.task,
            grid=puzzle.grid,
            model=name,
            budget=budget,
            seed=seed + index,
            noise=noise,
            selection=selection,
            id=f"row-{index}",
        )
        for index, puzzle in enumerate(puzzles)
    ]
    start = time.perf_counter()
    tally = Tally()
    for index, answer in _solve(engine, requests):
        right = tally.add(puzzles[index], answer)
        if on_answer is not None:
            on_answer(right)
    seconds = time.perf_counter() - start
    card = engine.models[name]
    return tally.report(
        model=name,
        digest=card.digest,
        data=data,
        depth=budget.depth,
        breadth=budget.breadth,
        nfe=budget.nfe,
        stop=budget.stop,
        tolerance=card.tolerance if budget.tolerance is None else budget.tolerance,
        noise=noise,
        seed=seed,
        selection=selection,
        seconds=seconds,
    )


def _solve(engine: Engine, requests: list[SolveRequest]) -> Iterable[tuple[int, Answer]]:
    """Keep the engine's slots full, and give each answer out when it is there.

    The engine sets up slots for a size with the first request of it, hence the look at its stats.
    """
    places = {request.id: index for index, request in enumerate(requests)}
    waiting = iter(requests)
    busy = 0
    while True:
        while busy < min(engine.queue, max(1, engine.stats.slots)):
            request = next(waiting, None)
            if request is None:
                break
            engine.submit(request)
            busy += 1
        if not busy:
            return
        for answer in engine.step():
            busy -= 1
            yield places[answer.id], answer


TERMS = ("data", "depth", "breadth", "nfe", "tolerance", "stop", "selection", "noise")
"""What two reports must share to be on the same thing."""


def record_report(folder: Path, report: Report, data: str) -> Card:
    """Add `report` to the results in the card of `folder`; `data` is how the card names the file.

    A report on the same terms takes the place of an earlier one on as many rows or fewer.
    ModelError where the checkpoint has changed since, DataError where more rows are on record.
    """
    card = read_card(folder)
    if card.digest != report.digest:
        raise ModelError(f"{card.name}: the checkpoint has changed since; nothing was recorded")
    result = json.loads(json.dumps({**report.to_dict(), "data": data}))
    same = [r for r in card.results if all(r.get(name) == result[name] for name in TERMS)]
    for earlier in same:
        if earlier["rows"] > report.rows:
            raise DataError(
                f"rows is {report.rows}; the card already has this on {earlier['rows']} rows"
            )
    others = [r for r in card.results if r not in same]
    card = replace(card, results=(*others, result))
    update_card(folder, card)
    return card

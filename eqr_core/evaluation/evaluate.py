"""Measure a checkpoint on a puzzle file, through the engine that serves it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eqr_core.data.puzzles import PuzzleRow, read_puzzles
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.selection import Selection
from eqr_core.errors import DataError, GridError, ModelError
from eqr_core.evaluation.shares import Share
from eqr_core.tasks import parse_grid
from eqr_core.tasks.base import Grid, Task

RATING_CLASSES = (("0", 0), ("1-10", 10), ("11-30", 30), (">30", math.inf))
"""Names of the difficulty classes and the highest rating of each."""


@dataclass(frozen=True)
class Puzzle:
    """A row of a puzzle file, parsed and checked."""

    task: Task
    grid: Grid
    answer: Grid
    source: str
    rating: int


@dataclass(frozen=True)
class Report:
    """What a checkpoint did on `rows` puzzles; shares are from 0 to 1."""

    model: str
    digest: str
    data: str
    rows: int
    depth: int
    breadth: int
    stop: str
    tolerance: float | None
    noise: float
    seed: int
    selection: str
    exact: int
    exact_accuracy: float
    """Share of the puzzles with every cell right."""
    exact_interval: tuple[float, float]
    """Wilson's 95 % interval of `exact_accuracy`."""
    cell_accuracy: float
    """Share of right cells among all cells, clues included."""
    converged: float
    """Share of the puzzles whose answer converged."""
    verified: float
    """Share of the puzzles whose answer obeys the rules and extends the input."""
    exact_given_converged: float | None
    """Share of right answers among the converged ones; None where none converged."""
    mean_iterations: float
    """Outer steps of the chosen trajectory."""
    mean_nfe: float
    """Outer steps of all trajectories of a puzzle."""
    seconds: float
    finish_reasons: dict[str, int]
    source: dict[str, dict[str, Any]]
    """Exact accuracy with counts and interval, for each source of the file."""
    rating: dict[str, dict[str, Any]]
    """The same for each difficulty class that occurs."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


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
    tally = _Tally()
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


class _Tally:
    """Counts over answers."""

    def __init__(self) -> None:
        self.exact: list[bool] = []
        self.cells = self.right_cells = 0
        self.converged = self.verified = self.right_converged = 0
        self.iterations = self.nfe = 0
        self.finish_reasons: Counter[str] = Counter()
        self.by_source: dict[str, list[bool]] = {}
        self.by_rating: dict[str, list[bool]] = {name: [] for name, _ in RATING_CLASSES}

    def add(self, puzzle: Puzzle, answer: Answer) -> bool:
        """Count one answer; whether it is right."""
        right_cells = sum(
            given == wanted
            for given_row, wanted_row in zip(answer.grid, puzzle.answer, strict=True)
            for given, wanted in zip(given_row, wanted_row, strict=True)
        )
        right = right_cells == puzzle.task.tokens
        self.exact.append(right)
        self.cells += puzzle.task.tokens
        self.right_cells += right_cells
        self.converged += answer.converged
        self.verified += answer.verified
        self.right_converged += right and answer.converged
        self.iterations += answer.iterations
        self.nfe += answer.nfe
        self.finish_reasons[answer.finish_reason] += 1
        self.by_source.setdefault(puzzle.source, []).append(right)
        self.by_rating[rating_class(puzzle.rating)].append(right)
        return right

    def report(self, **settings: Any) -> Report:
        rows = len(self.exact)
        exact = _share(self.exact)
        return Report(
            rows=rows,
            exact=exact.count,
            exact_accuracy=exact.count / rows,
            exact_interval=exact.interval,
            cell_accuracy=self.right_cells / self.cells,
            converged=self.converged / rows,
            verified=self.verified / rows,
            exact_given_converged=Share(self.right_converged, self.converged).value,
            mean_iterations=self.iterations / rows,
            mean_nfe=self.nfe / rows,
            finish_reasons=dict(self.finish_reasons),
            source={name: _share(v).to_dict() for name, v in sorted(self.by_source.items())},
            rating={name: _share(v).to_dict() for name, v in self.by_rating.items() if v},
            **settings,
        )


def rating_class(rating: int) -> str:
    """Name of the difficulty class of a rating."""
    return next(name for name, highest in RATING_CLASSES if rating <= highest)


def _share(outcomes: Sequence[bool]) -> Share:
    return Share(sum(outcomes), len(outcomes))

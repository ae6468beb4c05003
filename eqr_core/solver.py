"""The face of the library: puzzles in, answers out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.selection import Selection
from eqr_core.errors import DeadlineExceeded
from eqr_core.tasks import parse_grid

DEFAULT_BUDGET = Budget()


class Solver:
    """Solves puzzles in this process with one checkpoint. Threads may share it: they take turns.

    >>> from eqr_core import Budget, Solver
    >>> solver = Solver.load("sudoku4")  # doctest: +SKIP
    >>> answer = solver.solve("1... ..3. .4.. ...2", Budget(depth=16, breadth=4))  # doctest: +SKIP
    >>> answer.text, answer.verified  # doctest: +SKIP
    ('1324243124133142', True)
    """

    def __init__(self, engine: Engine, model: str | None = None) -> None:
        """Use `engine`'s model of that name; None: the one that fits each grid best."""
        self._engine = engine
        self._model = model
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model: str | Path, *, slots: int = 64) -> Solver:
        """A solver of one checkpoint, a name from the zoo or a folder.

        ModelError for an unknown one, CheckpointError for a damaged one.
        """
        engine = Engine([model], slots=slots)
        return cls(engine, next(iter(engine.models)))

    def solve(
        self,
        grid: object,
        budget: Budget = DEFAULT_BUDGET,
        seed: int = 0,
        noise: float = 0.0,
        selection: Selection = "residual",
        task: str | None = None,
    ) -> Answer:
        """Solve one grid: rows of integers with 0 for a blank, or a string with `.` or `0`.

        The task and the size follow from the grid's shape where `task` is None. GridError lists
        every fault of an impossible grid; ModelError when the checkpoint does not fit;
        DeadlineExceeded when the deadline passed before any outer step. An answer that did not
        converge is returned with its finish reason, not raised.
        """
        (answer,) = self.solve_many([grid], budget, seed, noise, selection, task)
        if not answer.answered:
            raise DeadlineExceeded(
                f"the deadline of {budget.deadline_ms:g} ms passed before the first outer step"
            )
        return answer

    def solve_many(
        self,
        grids: Iterable[object],
        budget: Budget = DEFAULT_BUDGET,
        seed: int = 0,
        noise: float = 0.0,
        selection: Selection = "residual",
        task: str | None = None,
    ) -> list[Answer]:
        """Solve many grids through the engine's slots; the answers in order of `grids`.

        Each grid gets the answer that `solve` gives it with the same seed. One whose deadline
        passed before any outer step has `answered` False and the input as its grid. Raises as
        `solve` does, before any work, for the first grid that is at fault.
        """
        requests = []
        for grid in grids:
            parsed_task, parsed = parse_grid(grid, task)
            requests.append(
                SolveRequest(
                    task=parsed_task,
                    grid=parsed,
                    model=self._engine.choose_model(parsed_task, self._model),
                    budget=budget,
                    seed=seed,
                    noise=noise,
                    selection=selection,
                )
            )
        with self._lock:
            return self._engine.solve(requests)

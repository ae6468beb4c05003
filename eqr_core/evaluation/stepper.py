"""Solves chunks of rows with one checkpoint, through the engine's slots and runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eqr_core.engine.outputs import halting_outputs
from eqr_core.engine.randomness import start_states
from eqr_core.engine.runner import Row, Runner
from eqr_core.engine.slots import SlotPool
from eqr_core.evaluation.part import COUNTS, Part, RowRecord, record_replay, record_solved
from eqr_core.evaluation.replay import Replay
from eqr_core.evaluation.rows import Puzzle
from eqr_core.evaluation.sweep import Settings
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import build_operator
from eqr_core.model.operator import Operator
from eqr_core.tasks.base import Grid, Task

RIGHT_CELLS = COUNTS.index("right_cells")


@dataclass
class _Live:
    """A puzzle on its way, in the slots `first`, `first` + 1, … one for each trajectory."""

    number: int
    puzzle: Puzzle
    seed: int
    first: int
    embedding: Tensor
    replay: Replay
    judge: dict[bytes, tuple[int, bool]]


class Stepper:
    """Runs every trajectory that the cells of a sweep ask for. Keeps what it has compiled."""

    def __init__(
        self, weights: dict[str, Tensor], card: Card, settings: Settings, slots: int
    ) -> None:
        self._weights, self._card, self._settings = weights, card, settings
        breadth = settings.sweep.breadth
        self._at_once = max(1, slots // breadth)
        self._pools: dict[str, tuple[Operator, SlotPool, Runner]] = {}

    def run(self, first: int, puzzles: Sequence[Puzzle], on_row: Callable[[bool], None]) -> Part:
        """The part of `puzzles`, which are the rows `first`, `first` + 1, … of the evaluation.

        `on_row` is called as each is done, in no fixed order, with whether the largest cell has
        it right. One torch thread computes, so results do not depend on the number of cores.
        """
        begin = time.perf_counter()
        records: dict[int, RowRecord] = {}
        main = self._settings.sweep.main
        with one_thread():
            for size in dict.fromkeys(puzzle.task.size for puzzle in puzzles):
                same = [(i, p) for i, p in enumerate(puzzles) if p.task.size == size]
                for number, live in self._run_size(same[0][1].task, first, same):
                    records[number] = record = self._record(puzzles[number], live)
                    on_row(bool(record.cells[main, RIGHT_CELLS] == puzzles[number].task.tokens))
        seconds = time.perf_counter() - begin
        return Part.join([records[number] for number in range(len(puzzles))], seconds)

    def answers(self, row: int, puzzle: Puzzle) -> list[Grid]:
        """What each cell of the sweep answers to `puzzle`, which is the row `row`.

        The puzzle itself where no trajectory made a finite step.
        """
        with one_thread():
            ((_, live),) = self._run_size(puzzle.task, row, [(0, puzzle)])
        outcomes = [] if live is None else live.replay.outcomes()
        tokens = [outcome.prediction for outcome in outcomes] or [None]
        decode = puzzle.task.decode
        return [puzzle.grid if t is None else decode(np.frombuffer(t, np.uint8)) for t in tokens]

    def _record(self, puzzle: Puzzle, live: _Live | None) -> RowRecord:
        sweep = self._settings.sweep
        if live is None:
            return record_solved(len(sweep.budgets), sweep.breadth, puzzle.task.tokens)
        return record_replay(live.replay, live.judge, puzzle.clues)

    @torch.inference_mode()
    def _run_size(
        self, task: Task, first: int, puzzles: Sequence[tuple[int, Puzzle]]
    ) -> Iterator[tuple[int, _Live | None]]:
        """Each puzzle as it is done, with its number; None for a full grid, on which none runs."""
        sweep, noise = self._settings.sweep, self._settings.noise
        operator, pool, runner = self._pool(task)
        free = [block * sweep.breadth for block in reversed(range(self._at_once))]
        waiting = iter(puzzles)
        live: list[_Live] = []
        while True:
            while free:
                number, puzzle = next(waiting, (-1, None))
                if puzzle is None:
                    break
                if task.verify(puzzle.grid, puzzle.grid):
                    yield number, None
                    continue
                live.append(self._begin(number, first + number, puzzle, free.pop(), operator))
            if not live:
                return
            wanted = [(one, index) for one in live for index in one.replay.wanted()]
            for one, index in wanted:
                if not one.replay.tracks[index].residual:
                    state = start_states(operator, [(one.seed, index)])
                    pool.write(one.first + index, [rows[0] for rows in state], one.embedding)
            results = runner.run(
                [
                    Row(
                        one.first + index,
                        one.seed,
                        index,
                        len(one.replay.tracks[index].residual) + 1,
                        noise,
                    )
                    for one, index in wanted
                ]
            )
            asking = (one.first + index for one, index in wanted) if sweep.halt == "q" else ()
            q = halting_outputs(operator, pool, asking)
            steps: dict[int, dict[int, tuple[float, bytes]]] = {one.first: {} for one in live}
            for one, index in wanted:
                step = results[one.first + index]
                steps[one.first][index] = step
                if step[1] not in one.judge:
                    one.judge[step[1]] = one.puzzle.judge(step[1])
            for one in live:
                its = {slot - one.first: value for slot, value in q.items()}
                one.replay.feed(steps[one.first], its)
                if one.replay.done:
                    free.append(one.first)
                    yield one.number, one
            live = [one for one in live if not one.replay.done]

    def _begin(
        self, number: int, row: int, puzzle: Puzzle, first: int, operator: Operator
    ) -> _Live:
        settings = self._settings
        judge: dict[bytes, tuple[int, bool]] = {}
        tokens = torch.from_numpy(puzzle.task.encode(puzzle.grid))
        replay = Replay(
            settings.sweep.budgets,
            settings.tolerance,
            settings.selection,
            lambda prediction: judge[prediction][1],
        )
        embedding = operator.embed(tokens[None])[0]
        return _Live(number, puzzle, settings.seed + row, first, embedding, replay, judge)

    def _pool(self, task: Task) -> tuple[Operator, SlotPool, Runner]:
        if task.size not in self._pools:
            operator = build_operator(self._weights, self._card, task)
            pool = SlotPool(operator, self._at_once * self._settings.sweep.breadth)
            self._pools[task.size] = (
                operator,
                pool,
                Runner(operator, pool, self._settings.arithmetic == "compiled"),
            )
        return self._pools[task.size]


@contextmanager
def one_thread() -> Iterator[None]:
    """Products may round differently with another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

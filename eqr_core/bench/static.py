"""Contender (b): static batches, every row to the same depth, as the reference evaluates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eqr_core.bench.clock import Clock
from eqr_core.engine.halting import WINDOW
from eqr_core.engine.randomness import start_states
from eqr_core.errors import ModelError
from eqr_core.model.native import SingleStep, single_step
from eqr_core.model.operator import Operator, State, residual
from eqr_core.tasks.base import Grid

Arithmetic = Literal["eager", "compiled", "native"]
"""Plain torch; torch.compile; our native outer step, where there is one."""

Advance = Callable[[State, Tensor], State]


class StaticBatches:
    """Solves batches of puzzles of one size with a fixed budget."""

    def __init__(self, operator: Operator, arithmetic: Arithmetic) -> None:
        """ModelError where native code is asked for and there is none."""
        self.operator = operator
        self._advance: Advance = operator.outer_step
        if arithmetic == "compiled":
            self._advance = torch.compile(operator.outer_step, dynamic=False)
        elif arithmetic == "native":
            step = single_step(operator)
            if step is None:
                raise ModelError("there is no native code for this operator on this machine")
            self._advance = _in_place(step)

    @torch.inference_mode()
    def solve(
        self, grids: Sequence[Grid], seeds: Sequence[int], depth: int, breadth: int
    ) -> list[Grid]:
        """The answer of the trajectory with the lowest score, after `depth` outer steps of each."""
        task = self.operator.task
        e = self.embed(grids)
        best = torch.full((len(grids),), torch.inf)
        answers = torch.empty(len(grids), task.tokens, dtype=torch.uint8)
        for index in range(breadth):
            state = start_states(self.operator, [(seed, index) for seed in seeds])
            score = torch.zeros(len(grids))
            for step in range(depth):
                last = step >= depth - WINDOW
                old = tuple(part.clone() for part in state) if last else state
                state = self._advance(state, e)
                if last:
                    score += residual(state, old)
            better = score < best
            best = torch.where(better, score, best)
            tokens = self.operator.predict(self.operator.read(state)[0])
            answers = torch.where(better[:, None], tokens, answers)
        return [task.decode(np.asarray(row)) for row in answers.numpy()]

    @torch.inference_mode()
    def embed(self, grids: Sequence[Grid]) -> Tensor:
        """Input embedding [len(grids), *state_shape]."""
        tokens = np.stack([self.operator.task.encode(grid) for grid in grids])
        return self.operator.embed(torch.from_numpy(tokens))

    @torch.inference_mode()
    def begin(self, grids: Sequence[Grid]) -> StaticRun:
        """A batch whose outer steps are timed one by one; what is made once is made here."""
        run = StaticRun(
            self._advance,
            start_states(self.operator, [(i, 0) for i in range(len(grids))]),
            self.embed(grids),
        )
        run.go_on()
        return StaticRun(self._advance, run.state, run.embedding)


@dataclass
class StaticRun:
    """Outer steps of one batch and their time."""

    advance: Advance
    state: State
    embedding: Tensor
    clock: Clock = field(default_factory=Clock)
    steps: int = 0

    @torch.inference_mode()
    def go_on(self) -> None:
        """One more outer step of every row."""
        with self.clock:
            self.state = self.advance(self.state, self.embedding)
        self.steps += 1

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.embedding)


def _in_place(step: SingleStep) -> Advance:
    def advance(state: State, e: Tensor) -> State:
        step(state[0], e, range(len(e)))
        return state

    return advance

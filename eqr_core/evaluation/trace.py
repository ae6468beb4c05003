"""Trajectories followed step by step: how their score falls, and when their prediction is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from eqr_core.data.packed import PackedPuzzles
from eqr_core.engine.halting import WINDOW
from eqr_core.engine.outputs import halting_outputs
from eqr_core.engine.randomness import start_states
from eqr_core.engine.runner import Row, Runner
from eqr_core.engine.slots import SlotPool
from eqr_core.model.operator import Operator

SLOTS = 64


@dataclass(frozen=True)
class Traces:
    """What happened at each step of each trajectory, puzzle by puzzle."""

    score: npt.NDArray[np.float64]
    """Mean residual of the last three steps, [trajectories, depth]; inf before the third."""
    right: npt.NDArray[np.bool_]
    """Whether the prediction after this step is right in every cell, [trajectories, depth]."""


@dataclass(frozen=True)
class Recording:
    """Trajectories of several puzzles, puzzle by puzzle, `breadth` of each."""

    breadth: int
    residual: npt.NDArray[np.float32]
    """[trajectories, depth]."""
    prediction: npt.NDArray[np.int32]
    """Number of the prediction after this step among its puzzle's, [trajectories, depth]."""
    right: npt.NDArray[np.bool_]
    """As in `Traces`."""
    q: npt.NDArray[np.float32]
    """Halting output after this step, [trajectories, depth]."""

    @cached_property
    def traces(self) -> Traces:
        """The trajectories one by one."""
        return Traces(scores(self.residual), self.right)

    @property
    def puzzles(self) -> int:
        """Puzzles recorded."""
        return len(self.residual) // self.breadth

    def take(self, rows: slice) -> Recording:
        """The trajectories `rows`."""
        return Recording(
            self.breadth,
            self.residual[rows],
            self.prediction[rows],
            self.right[rows],
            self.q[rows],
        )


@torch.inference_mode()
def follow(
    operator: Operator,
    puzzles: PackedPuzzles,
    *,
    depth: int,
    breadth: int,
    seed: int = 0,
    compiled: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> Recording:
    """Run `breadth` trajectories of every puzzle to `depth`, without noise and without halting.

    Trajectory k of row i starts where the engine starts trajectory k of a request whose seed is
    `seed` + i. `compiled` pays on long runs, as in the engine. `on_rows` is called with the
    number of trajectories done since the last call.
    """
    starts = [(row, index) for row in range(len(puzzles)) for index in range(breadth)]
    moved = np.zeros((len(starts), depth), np.float32)
    right = np.zeros((len(starts), depth), np.bool_)
    predictions = np.zeros((len(starts), depth), np.int32)
    halting = np.zeros((len(starts), depth), np.float32)
    numbers: list[dict[bytes, int]] = [{} for _ in range(len(puzzles))]
    pool = SlotPool(operator, SLOTS)
    runner = Runner(operator, pool, compiled)
    for first in range(0, len(starts), SLOTS):
        part = starts[first : first + SLOTS]
        embedding = operator.embed(torch.from_numpy(puzzles.question[[row for row, _ in part]]))
        for slot, (row, index) in enumerate(part):
            state = start_states(operator, [(seed + row, index)])
            pool.write(slot, [rows[0] for rows in state], embedding[slot])
        answers = [puzzles.answer[row].tobytes() for row, _ in part]
        for step in range(depth):
            results = runner.run([Row(slot, 0, 0, step + 1, 0.0) for slot in range(len(part))])
            for slot, q in halting_outputs(operator, pool, range(len(part))).items():
                halting[first + slot, step] = q
            for slot, (answer, (row, _)) in enumerate(zip(answers, part, strict=True)):
                moved[first + slot, step], predicted = results[slot]
                right[first + slot, step] = predicted == answer
                seen = numbers[row]
                predictions[first + slot, step] = seen.setdefault(predicted, len(seen))
        if on_rows is not None:
            on_rows(len(part))
    return Recording(breadth, moved, predictions, right, halting)


def scores(residuals: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean of the last three of `residuals` [trajectories, depth] at each step; inf before."""
    score = np.full(residuals.shape, np.inf)
    depth = residuals.shape[1]
    if depth >= WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(residuals, WINDOW, axis=1)
        score[:, WINDOW - 1 :] = windows.mean(-1, dtype=np.float64)
    return score

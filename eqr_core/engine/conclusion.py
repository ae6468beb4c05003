"""From a request that has ended to its answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eqr_core.engine.answer import Answer, SolveRequest, TrajectoryResult
from eqr_core.engine.confidence import Confidence
from eqr_core.engine.halting import Halt
from eqr_core.engine.selection import agreement, choose, finished
from eqr_core.engine.trajectory import Prediction, Request, Trajectory
from eqr_core.model.card import Card
from eqr_core.tasks.base import Grid, Task


@dataclass(frozen=True)
class Conclusion:
    """Makes the answers of one model. It holds nothing of a request, so any thread may ask it."""

    model: str
    layers_per_step: int
    confidence: Mapping[Halt, Confidence]

    @classmethod
    def of(cls, card: Card) -> Conclusion:
        """CheckpointError where the card's confidence is damaged."""
        return cls(card.name, card.operator.layers_per_step, Confidence.of(card))

    def answer(
        self, request: Request, asked: SolveRequest, submitted: float, first_slot: float | None
    ) -> Answer:
        """What `asked` came to, now that `request` has ended; wherever its trajectories ran.

        `submitted` and `first_slot` are moments of `time.monotonic`.
        """
        now = time.monotonic()
        task = asked.task
        started = [t for t in request.trajectories if t.steps]
        seen = {
            prediction: (grid := decode(task, prediction), task.verify(asked.grid, grid))
            for prediction in {t.prediction for t in started if t.prediction}
        }
        nothing = (asked.grid, False)
        results = tuple(
            TrajectoryResult(
                index=t.index,
                wave=t.wave,
                iterations=t.steps,
                residual=t.score,
                converged=t.outcome == "converged",
                verified=seen.get(t.prediction or b"", nothing)[1],
                outcome=t.outcome,
                grid=seen.get(t.prediction or b"", nothing)[0],
                history=tuple(t.history),
                prediction=t.prediction,
            )
            for t in started
        )
        chosen = choose(request, asked.selection)
        grid, verified = seen[chosen.prediction or b""] if chosen else nothing
        votes = (agreement(chosen, started), len(finished(chosen, started))) if chosen else (0.0, 0)
        first_slot = now if first_slot is None else first_slot
        return Answer(
            id=request.id,
            task=task.name,
            model=self.model,
            grid=grid,
            text=task.text(grid),
            residual=chosen.score if chosen else math.inf,
            converged=chosen is not None and chosen.outcome == "converged",
            verified=verified,
            finish_reason=request.finish_reason or "",
            iterations=chosen.steps if chosen else 0,
            nfe=request.nfe,
            layers=chosen.steps * self.layers_per_step if chosen else 0,
            started=len(started),
            finished_converged=sum(t.outcome == "converged" for t in started),
            lost=sum(t.outcome == "lost" for t in request.trajectories),
            agreement=votes[0],
            confidence=self._sure(request, asked.noise, chosen, verified, *votes),
            seed=asked.seed,
            trajectories=results,
            queue_seconds=first_slot - submitted,
            solve_seconds=now - first_slot,
        )

    def _sure(
        self,
        request: Request,
        noise: float,
        chosen: Trajectory | None,
        verified: bool,
        agreement: float,
        finished: int,
    ) -> float | None:
        fitted = self.confidence.get(request.budget.halt)
        # Path noise keeps every score above about √2·β, and the numbers are fitted without it.
        if fitted is None or noise or chosen is None:
            return None
        if not verified:
            return 0.0  # wrong for certain, whatever its trajectories did
        converged = chosen.outcome == "converged"
        return fitted(chosen.score, agreement, finished, request.wave[0].wave, converged)


def decode(task: Task, prediction: Prediction) -> Grid:
    """The grid that a trajectory predicts."""
    return task.decode(np.frombuffer(prediction, dtype=np.uint8))

"""All cells of a sweep on one puzzle, decided by the engine's own rules on shared trajectories.

Each cell is a request of the engine (`engine/waves.py`, `engine/selection.py`), driven from
trajectories that are computed once. A step of a trajectory is computed when the first request
waits for it; every other request finds it there. So the full budget costs no more than its
largest cell, and adaptive budgets cost only what they really use.

Time is trajectory time: the trajectories of a wave advance together, as they do in an engine
with a slot for each of them. The answer is then the engine's whatever its slots, and the NFE
that of an engine with slots enough.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from eqr_core.engine.budget import Budget
from eqr_core.engine.selection import Selection, agreement, choose, finished
from eqr_core.engine.trajectory import FinishReason, Prediction, Request
from eqr_core.engine.waves import begin_wave, record_step, settle


@dataclass
class Track:
    """One trajectory as far as it was computed."""

    residual: array[float] = field(default_factory=lambda: array("f"))
    prediction: array[int] = field(default_factory=lambda: array("i"))
    """Number of the prediction after each step, in `Replay.predictions`."""
    q: array[float] = field(default_factory=lambda: array("d"))
    """Halting output after each step; NaN where nobody asked for it."""


@dataclass(frozen=True)
class Outcome:
    """What one cell came to on one puzzle."""

    prediction: Prediction | None
    """Answer tokens; None where no trajectory made a finite step."""
    score: float
    """Of the answer's trajectory; inf where there is none."""
    converged: bool
    iterations: int
    nfe: int
    finish_reason: FinishReason
    agreement: float = 0.0
    """Share of the `finished` trajectories with this prediction."""
    finished: int = 0
    """Trajectories that ran until they converged or to their end, and the answer's."""
    wave: int = 0
    """The last one that began."""


class Replay:
    """The requests of all cells on one puzzle. Feed it what it wants until it is done."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        tolerance: float | None,
        selection: Selection,
        verify: Callable[[Prediction], bool],
    ) -> None:
        self.tracks = [Track() for _ in range(max(budget.breadth for budget in budgets))]
        self.predictions: dict[Prediction, int] = {}
        """Every different prediction, with its number."""
        self._selection = selection
        self._by_number: list[Prediction] = []
        self._requests = [
            Request(id=str(number), budget=budget, tolerance=tolerance, verify=verify)
            for number, budget in enumerate(budgets)
        ]
        for request in self._requests:
            begin_wave(request)
        self._open = list(self._requests)

    @property
    def done(self) -> bool:
        """Whether every cell has its answer."""
        return not self._open

    def wanted(self) -> list[int]:
        """Trajectories whose next outer step a request waits for; none only when done."""
        indices = {
            trajectory.index
            for request in self._open
            for trajectory in request.wave
            if trajectory.running
            and trajectory.steps == len(self.tracks[trajectory.index].residual)
        }
        return sorted(indices)

    def feed(
        self,
        steps: Mapping[int, tuple[float, Prediction]],
        q: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """One outer step, (residual, prediction), of each trajectory that is wanted.

        `q` holds their halting outputs; budgets that halt by them need it.
        """
        for index, (residual, prediction) in steps.items():
            number = self.predictions.setdefault(prediction, len(self.predictions))
            if number == len(self._by_number):
                self._by_number.append(prediction)
            self.tracks[index].residual.append(residual)
            self.tracks[index].prediction.append(number)
            self.tracks[index].q.append(q.get(index, math.nan))
        for request in self._open:
            self._advance(request)
        self._open = [request for request in self._open if request.finish_reason is None]

    def outcomes(self) -> list[Outcome]:
        """What each cell came to, in the order of the budgets."""
        return [self._outcome(request) for request in self._requests]

    def _advance(self, request: Request) -> None:
        tracks = self.tracks
        while request.finish_reason is None:
            running = [trajectory for trajectory in request.wave if trajectory.running]
            if any(t.steps >= len(tracks[t.index].residual) for t in running):
                return
            for trajectory in running:
                track, step = tracks[trajectory.index], trajectory.steps
                prediction = self._by_number[track.prediction[step]]
                trajectory.q = track.q[step]
                record_step(request, trajectory, track.residual[step], prediction)
            settle(request)

    def _outcome(self, request: Request) -> Outcome:
        chosen = choose(request, self._selection)
        reason = request.finish_reason or "exhausted"
        if chosen is None:
            return Outcome(None, float("inf"), False, 0, request.nfe, reason)
        return Outcome(
            prediction=chosen.prediction,
            score=chosen.score,
            converged=chosen.outcome == "converged",
            iterations=chosen.steps,
            nfe=request.nfe,
            finish_reason=reason,
            agreement=agreement(chosen, request.trajectories),
            finished=len(finished(chosen, request.trajectories)),
            wave=request.wave[0].wave,
        )

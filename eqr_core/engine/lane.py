"""One checkpoint at one task size: its scheduler, its slots and its runner, one tick at a time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.conclusion import Conclusion, decode
from eqr_core.engine.graphs import GraphRunner
from eqr_core.engine.memory import fitting_slots, slot_bytes
from eqr_core.engine.outputs import halting_outputs
from eqr_core.engine.randomness import start_states
from eqr_core.engine.runner import Row, Runner
from eqr_core.engine.scheduler import Placement, Scheduler
from eqr_core.engine.slots import SlotPool
from eqr_core.engine.trajectory import Request, Trajectory
from eqr_core.model.operator import Operator, State
from eqr_core.tasks.base import Tokens


@dataclass
class _Work:
    """What the lane keeps of a request beside the scheduler's record."""

    request: SolveRequest
    tokens: Tokens
    submitted: float
    first_slot: float | None = None
    parked: dict[Trajectory, State] = field(default_factory=dict)


class Lane:
    """Solves requests of one model at one size. Not thread-safe."""

    def __init__(
        self,
        operator: Operator,
        tolerance: float | None,
        conclusion: Conclusion,
        *,
        slots: int,
        queue: int,
        compiled: bool,
        taken: int = 0,
    ) -> None:
        """`taken` are bytes promised to other lanes."""
        on_gpu = operator.device.type == "cuda"
        slots = fitting_slots(operator, slots, taken=taken)
        self.scheduler = Scheduler(slots, queue)
        self._operator = operator
        self._tolerance = tolerance
        self._conclusion = conclusion
        # A GPU's runner fills its groups up with a row more.
        self._pool = SlotPool(operator, slots + on_gpu)
        self._runner = (
            GraphRunner(operator, self._pool) if on_gpu else Runner(operator, self._pool, compiled)
        )
        self._work: dict[str, _Work] = {}
        self.bytes = slots * slot_bytes(operator)

    @property
    def active(self) -> bool:
        """Whether a tick has anything to do."""
        return bool(self._work)

    def submit(self, request: SolveRequest, moment: float) -> None:
        """Take a request with an id and a checked grid; QueueFull when too many wait."""
        task, budget = request.task, request.budget
        tokens = task.encode(request.grid)
        self.scheduler.add(
            Request(
                id=request.id,
                budget=budget,
                tolerance=self._tolerance if budget.tolerance is None else budget.tolerance,
                verify=lambda prediction: task.verify(request.grid, decode(task, prediction)),
                priority=request.priority,
                deadline=math.inf
                if budget.deadline_ms is None
                else moment + budget.deadline_ms / 1000,
                keep_history=request.history,
                shard=request.shard,
            )
        )
        self._work[request.id] = _Work(request, tokens, moment)

    def discard(self, request_id: str) -> None:
        """End a request without an answer."""
        self.scheduler.discard(request_id)
        self._work.pop(request_id, None)

    def tick(self, until: float = math.inf) -> tuple[list[Answer], int]:
        """One tick: the answers that ended in it, and the number of outer steps run.

        At the moment `until` of `time.monotonic` the rest of the outer steps wait for the next.
        """
        plan = self.scheduler.plan(time.monotonic())
        for placement in plan.park:
            work = self._work[placement.request.id]
            work.parked[placement.trajectory] = self._pool.park(placement.slot)
        for placement in plan.place:
            self._enter(placement)
        results = self._runner.run([self._row(placement) for placement in plan.run], until)
        asking = {
            placement.slot: placement.trajectory
            for placement in plan.run
            if placement.request.budget.halt == "q" and placement.slot in results
        }
        for slot, q in halting_outputs(self._operator, self._pool, asking).items():
            asking[slot].q = q
        self.scheduler.update(
            (placement, *results[placement.slot])
            for placement in plan.run
            if placement.slot in results
        )
        answers = [self._answer(request) for request in self.scheduler.take_ended()]
        return answers, len(results)

    def progress(self, request_id: str) -> Progress | None:
        """Where a request stands; None before its first outer step and after its end."""
        request = self.scheduler.find(request_id)
        made = [t for t in request.wave if t.prediction] if request else []
        if not made:
            return None
        leading = min(made, key=lambda t: (t.score, t.index))
        work = self._work[request_id]
        grid = decode(work.request.task, leading.prediction or b"")
        passed = min((t.steps for t in request.wave if t.running), default=0) if request else 0
        return Progress(leading.steps, leading.score, grid, passed)

    def _enter(self, placement: Placement) -> None:
        work = self._work[placement.request.id]
        if work.first_slot is None:
            work.first_slot = time.monotonic()
        state = work.parked.pop(placement.trajectory, None)
        if state is None:
            state = self._initial(work.request.seed, placement.trajectory.index)
        self._pool.write(placement.slot, state, self._embed(work.tokens))

    @torch.inference_mode()
    def _embed(self, tokens: Tokens) -> Tensor:
        return self._operator.embed(torch.from_numpy(tokens)[None].to(self._operator.device))[0]

    @torch.inference_mode()
    def _initial(self, seed: int, trajectory: int) -> State:
        return tuple(rows[0] for rows in start_states(self._operator, [(seed, trajectory)]))

    def _row(self, placement: Placement) -> Row:
        request, trajectory = self._work[placement.request.id].request, placement.trajectory
        return Row(
            placement.slot, request.seed, trajectory.index, trajectory.steps + 1, request.noise
        )

    def _answer(self, request: Request) -> Answer:
        work = self._work.pop(request.id)
        return self._conclusion.answer(request, work.request, work.submitted, work.first_slot)

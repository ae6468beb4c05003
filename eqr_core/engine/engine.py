"""The engine: many requests, several checkpoints, one outer step at a time (DESIGN section 3)."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from eqr_core.device import choose_device
from eqr_core.engine.answer import (
    Answer,
    Progress,
    SolveRequest,
    TrajectoryResult,
    already_solved,
)
from eqr_core.engine.conclusion import Conclusion
from eqr_core.engine.lane import Lane
from eqr_core.engine.memory import have_room
from eqr_core.engine.runner import arithmetic
from eqr_core.engine.stats import Observer, Stats, Tick
from eqr_core.engine.trajectory import Request
from eqr_core.errors import EqrError, GridError, ModelError, QueueFull, shown
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import (
    build_operator,
    check_sizes,
    find_checkpoint,
    load_checkpoint,
)
from eqr_core.model.operator import Operator
from eqr_core.model.sizes import count, fits
from eqr_core.tasks.base import Task

__all__ = ["Answer", "Engine", "Progress", "SolveRequest", "TrajectoryResult"]

Weights = dict[str, Tensor]

MAX_LANES = 64
"""Lanes kept while others work: a model may solve thousands of sizes."""

SLICE_SECONDS = 0.005
"""After this a tick starts no more groups of rows of a lane, so that who arrives is soon seen."""


class Engine:
    """Solves requests by ticks. Not thread-safe: AsyncEngine owns one from a single thread.

    Every (checkpoint, task size) that is asked for gets `slots` slots and a line of its own, in
    which `queue` requests can wait.
    """

    def __init__(
        self,
        checkpoints: Sequence[str | Path],
        *,
        slots: int = 64,
        queue: int = 1024,
        compiled: bool = False,
        device: str = "cpu",
        observer: Observer | None = None,
    ) -> None:
        """Load `checkpoints`, each a zoo name or a folder.

        CheckpointError for a damaged one or a damaged card; ModelError for one that is unknown or
        does not fit a size on its card, so that no request finds out.

        `compiled` asks torch to compile the outer steps of operators that have no native code,
        which takes half a minute: for long work, such as an evaluation. `device` is `cpu` or
        `cuda`; EqrError where there is no such thing.
        """
        loaded = [load_checkpoint(find_checkpoint(str(name))) for name in checkpoints]
        self._set_up(loaded, slots, queue, compiled, device, observer)

    @classmethod
    def of(
        cls,
        loaded: Iterable[tuple[Weights, Card]],
        *,
        slots: int = 64,
        queue: int = 1024,
        compiled: bool = False,
        device: str = "cpu",
        observer: Observer | None = None,
    ) -> Engine:
        """An engine of weights and cards that are in memory already."""
        engine = cls.__new__(cls)
        engine._set_up(list(loaded), slots, queue, compiled, device, observer)
        return engine

    def _set_up(
        self,
        loaded: list[tuple[Weights, Card]],
        slots: int,
        queue: int,
        compiled: bool,
        device: str,
        observer: Observer | None,
    ) -> None:
        for name, value in (("slots", slots), ("queue", queue)):
            if value < 1:
                raise EqrError(f"{name} is {value}; it must be at least 1")
        if not loaded:
            raise ModelError("the engine needs at least one checkpoint")
        self._weights: dict[str, Weights] = {}
        self._conclusions: dict[str, Conclusion] = {}
        cards: dict[str, Card] = {}
        for weights, card in loaded:
            if card.name in cards:
                raise ModelError(f"two checkpoints are named {card.name!r}")
            check_sizes(card)
            self._conclusions[card.name] = Conclusion.of(card)
            self._weights[card.name], cards[card.name] = weights, card
        self.models: Mapping[str, Card] = MappingProxyType(cards)
        self.slots = slots
        self.queue = queue
        self._compiled = compiled
        self._device = choose_device(device)
        self._observer = observer
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lane_of: dict[str, Lane] = {}
        self._ready: dict[str, Answer] = {}
        self._outcomes: Counter[str] = Counter()
        self._ticks = 0
        self._outer_steps = 0
        self._tick_seconds = 0.0
        self._refresh()

    @property
    def stats(self) -> Stats:
        """The engine after the last submission, cancellation or tick; any thread may read it."""
        return self._stats

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do or to hand out."""
        return bool(self._lane_of or self._ready)

    def choose_model(self, task: Task, name: str | None = None) -> str:
        """Name of the model for `task`: `name` if it fits, else the most specialised one.

        That is the one trained for the fewest sizes, the first of several. ModelError when
        none fits.
        """
        if name is not None:
            self._check_fit(task, name)
            return name
        fitting = [
            card
            for card in self.models.values()
            if card.task == task.name and fits(card.sizes, task.size)
        ]
        if not fitting:
            have = ", ".join(
                f"{card.name} ({card.task} {', '.join(card.sizes)})"
                for card in self.models.values()
            )
            raise ModelError(f"no model solves {task.name} {task.size}; there is {have}")
        return min(fitting, key=lambda card: count(card.sizes)).name

    def submit(self, request: SolveRequest, moment: float | None = None) -> str:
        """Take a request and return its id.

        Its deadline counts from `moment` on `time.monotonic`'s clock; None: from now.

        A full grid that obeys the rules is its own answer, handed out by the next `step`.
        GridError, ModelError, QueueFull.
        """
        request = replace(request, id=request.id or uuid.uuid4().hex)
        self._check_fit(request.task, request.model)
        problems = request.task.validate(request.grid)
        if problems:
            raise GridError(problems)
        if request.id in self._lane_of or request.id in self._ready:
            raise EqrError(f"id: {shown(request.id)} is already being solved")
        if request.task.verify(request.grid, request.grid):
            self._ready[request.id] = already_solved(request)
            return request.id
        lane = self._lane(request.task, request.model)
        lane.submit(request, time.monotonic() if moment is None else moment)
        self._lane_of[request.id] = lane
        self._refresh()
        return request.id

    def cancel(self, request_id: str) -> None:
        """End a request with what it has; its slots are free for the next tick."""
        lane = self._lane_of.get(request_id)
        if lane is not None:
            lane.scheduler.cancel(request_id)
            self._refresh()

    def progress(self, request_id: str) -> Progress | None:
        """Where a request stands; None before its first outer step and after its end."""
        lane = self._lane_of.get(request_id)
        return None if lane is None else lane.progress(request_id)

    def sum_up(
        self, request: Request, asked: SolveRequest, submitted: float, first_slot: float | None
    ) -> Answer:
        """`Conclusion.answer` of a request whose waves were run as shards; any thread may ask."""
        return self._conclusions[asked.model].answer(request, asked, submitted, first_slot)

    def arithmetic(self, model: str) -> str:
        """What the answers of `model` are computed with; two that differ may round differently."""
        if self._device.type == "cuda":
            return f"cuda-{torch.cuda.get_device_name(self._device)}"
        return arithmetic(self.models[model].operator, self._compiled)

    def checkpoint(self, model: str) -> tuple[Weights, Card]:
        """Weights and card of a loaded model, as `of` takes them."""
        return self._weights[model], self.models[model]

    def step(self) -> list[Answer]:
        """One tick over all lanes: the answers of the requests that ended in it.

        A tick ends early when a deadline passes in it, so that the next one can end the request,
        and after a few milliseconds; then the next one has the rows that were left out first.
        """
        begin = time.perf_counter()
        answers, self._ready = list(self._ready.values()), {}
        outer_steps = 0
        lanes = [lane for lane in self._lanes.values() if lane.active]
        now = time.monotonic()
        until = min((lane.scheduler.next_deadline(now) for lane in lanes), default=now)
        for lane in lanes:
            ended, steps = lane.tick(min(until, time.monotonic() + SLICE_SECONDS))
            outer_steps += steps
            answers.extend(ended)
        for answer in answers:
            self._lane_of.pop(answer.id, None)
            self._outcomes.update(t.outcome for t in answer.trajectories)
        seconds = time.perf_counter() - begin
        if outer_steps:
            self._ticks += 1
            self._outer_steps += outer_steps
            self._tick_seconds += seconds
        self._refresh()
        if outer_steps and self._observer is not None:
            stats = self._stats
            self._observer(Tick(seconds, outer_steps, stats.slots_busy, stats.requests_waiting))
        return answers

    def solve(self, requests: Sequence[SolveRequest]) -> list[Answer]:
        """Solve all requests, in order of `requests`, admitting as many as there are slots.

        Raises as `submit` does, and EqrError where two requests have one id; then, and when
        interrupted, none of them goes on. Answers to requests that were submitted before are
        kept for the next `step`.
        """
        named = [request.id for request in requests if request.id]
        if len(set(named)) < len(named):
            twice = next(name for name, count in Counter(named).items() if count > 1)
            raise EqrError(f"id: {shown(twice)} stands more than once")
        answers: dict[str, Answer] = {}
        others: dict[str, Answer] = {}
        ids: dict[str, None] = {}
        try:
            while len(answers) < len(requests):
                while len(ids) < len(requests) and len(ids) - len(answers) < self.slots:
                    try:
                        ids[self.submit(requests[len(ids)])] = None
                    except QueueFull:  # of requests from before
                        break
                for answer in self.step():
                    (answers if answer.id in ids else others)[answer.id] = answer
        finally:
            for request_id in ids:
                if request_id not in answers:
                    self._discard(request_id)
            self._ready.update(others)
        return [answers[request_id] for request_id in ids]

    def _discard(self, request_id: str) -> None:
        """End a request of which nobody wants the answer."""
        self._ready.pop(request_id, None)
        lane = self._lane_of.pop(request_id, None)
        if lane is not None:
            lane.discard(request_id)
            self._refresh()

    def _lane(self, task: Task, model: str) -> Lane:
        key = model, task.size
        lane = self._lanes.pop(key, None)
        if lane is None:
            card = self.models[model]
            operator = build_operator(self._weights[model], card, task).to(self._device)
            self._close_idle_lanes(operator)
            lane = Lane(
                operator,
                card.tolerance,
                self._conclusions[model],
                slots=self.slots,
                queue=self.queue,
                compiled=self._compiled,
                taken=self._taken,
            )
        self._lanes[key] = lane
        return lane

    def _close_idle_lanes(self, operator: Operator) -> None:
        """Make room for one more lane; those that were asked for longest ago go first."""
        for key in [key for key, lane in self._lanes.items() if not lane.active]:
            if len(self._lanes) < MAX_LANES and have_room(operator, self.slots, self._taken):
                return
            del self._lanes[key]

    @property
    def _taken(self) -> int:
        return sum(lane.bytes for lane in self._lanes.values())

    def _check_fit(self, task: Task, name: str) -> None:
        card = self.models.get(name)
        if card is None:
            raise ModelError(f"unknown model {shown(name)}; there is {', '.join(self.models)}")
        if card.task != task.name or not fits(card.sizes, task.size):
            raise ModelError(
                f"{name} solves {card.task} {', '.join(card.sizes)}, not {task.name} {task.size}"
            )

    def _refresh(self) -> None:
        schedulers = [lane.scheduler for lane in self._lanes.values()]
        self._stats = Stats(
            slots=sum(scheduler.slots for scheduler in schedulers),
            slots_busy=sum(scheduler.busy for scheduler in schedulers),
            requests_waiting=sum(scheduler.waiting for scheduler in schedulers),
            requests_active=len(self._lane_of),
            ticks=self._ticks,
            outer_steps=self._outer_steps,
            tick_seconds=self._tick_seconds,
            trajectories=dict(self._outcomes),
        )

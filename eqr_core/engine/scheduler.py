"""Who gets which slot. Pure Python; the clock and the outer steps come from outside.

Slots go one at a time to the request with the lowest (priority, slots held, outer steps spent
beyond its share, deadline, arrival), so breadth is shared evenly within a priority: new requests
are admitted by deadline and arrival, and a request that frees its slot stands behind those that
have had less. Its share is what it would have had if all that were there had had the same. It grows
while a request waits, so that new ones, however many come, do not keep an old one out.
A request that holds nothing takes a slot from the one that holds the most, least urgent first,
if that one keeps another: the trajectory there is parked and goes on later, unchanged. So nobody
waits for a breadth that is not more urgent, only for requests, when there are more of them than
slots, and then for one trajectory of each at most.

A *fresh* request (`turns`) does not wait for long ones either: it may take the only slot of one
that has made a few outer steps since it got it. Who has lost its only slot is the first to get one
that becomes free.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from eqr_core.engine import waves
from eqr_core.engine.trajectory import Prediction, Request, Trajectory
from eqr_core.engine.turns import Turns, is_fresh
from eqr_core.errors import EqrError, QueueFull

LEASE_STEPS = 3
"""Outer steps that a request makes in its only slot before a fresh one may take it."""
FRESH_SLOTS = 0.25
"""Share of the slots, at least one, up to which fresh requests may take those of others."""


@dataclass(frozen=True)
class Placement:
    """A trajectory that enters or leaves a slot."""

    slot: int
    request: Request
    trajectory: Trajectory


@dataclass(frozen=True)
class Plan:
    """One tick: first `park`, then `place`, then one outer step for each of `run`."""

    park: list[Placement] = field(default_factory=list)
    place: list[Placement] = field(default_factory=list)
    run: list[Placement] = field(default_factory=list)


Step = tuple[Placement, float, Prediction]
"""What one outer step gave: residual and answer tokens."""


class Scheduler:
    """Requests, their trajectories, and `slots` slots.

    At most slots + queue requests at once, so that `queue` wait when each of the others has one.
    """

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.queue = queue
        self._free = list(range(slots))
        self._busy: dict[int, Placement] = {}
        self._requests: dict[str, Request] = {}
        self._ended: list[Request] = []
        self._arrivals = 0
        self._share = 0.0
        """Outer steps that a request here from the beginning would have had as its share."""
        self._seats: dict[int, tuple[Placement, int]] = {}
        """By slot, who has had it longest first, with the NFE of its request then."""
        self._turned_out: set[str] = set()
        self._turns = Turns(slots)

    @property
    def busy(self) -> int:
        """Slots held now."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Requests that hold no slot now."""
        holders = {placement.request.id for placement in self._busy.values()}
        return len(self._requests) - len(holders)

    @property
    def active(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    def find(self, request_id: str) -> Request | None:
        """The request of that id, unless it has ended."""
        return self._requests.get(request_id)

    def add(self, request: Request) -> None:
        """Take a request; QueueFull when there are as many as may be."""
        if request.id in self._requests:
            raise EqrError(f"id: {request.id!r} is already being solved")
        if self.active >= self.slots + self.queue:
            raise QueueFull(
                f"{self.active} requests are there already, {self.waiting} of them waiting; "
                "try again later"
            )
        request.arrival, request.share_before = self._arrivals, self._share
        self._arrivals += 1
        self._requests[request.id] = request

    def cancel(self, request_id: str) -> None:
        """End a request and free its slots at once; nothing happens if it has ended."""
        request = self._requests.get(request_id)
        if request is not None:
            waves.stop(request, "cancelled")
            self._end(request)

    def discard(self, request_id: str) -> None:
        """`cancel`, and `take_ended` will not give the request out either."""
        self.cancel(request_id)
        self._ended = [request for request in self._ended if request.id != request_id]

    def next_deadline(self, now: float) -> float:
        """The first deadline after `now`; inf where there is none."""
        return min((r.deadline for r in self._requests.values() if r.deadline > now), default=inf)

    def plan(self, now: float) -> Plan:
        """End what is past its deadline, fill the free slots, and say what runs."""
        for request in [r for r in self._requests.values() if r.deadline <= now]:
            waves.stop(request, "deadline")
            self._end(request)
        plan = Plan()
        self._fill(plan)
        self._make_room(plan)
        plan.run.extend(self._turns.choose(self._busy.values()))
        return plan

    def update(self, steps: Iterable[Step]) -> None:
        """Note what the outer steps gave; end, cut and widen what they decide.

        `steps` may leave out some of the plan's `run`. Plans have those first whose last outer
        step is longest ago.
        """
        touched: dict[str, Request] = {}
        each = 1 / max(1, self.active)
        for placement, residual, prediction in steps:
            self._turns.count(placement.request)
            self._share += each
            self._busy[placement.slot] = self._busy.pop(placement.slot)
            waves.record_step(placement.request, placement.trajectory, residual, prediction)
            touched[placement.request.id] = placement.request
        for request in touched.values():
            wave = request.wave
            waves.settle(request)
            for trajectory in wave:
                if not trajectory.running:
                    self._release(trajectory)
            if request.finish_reason is not None:
                self._end(request)

    def take_ended(self) -> list[Request]:
        """Requests that ended since the last call, each exactly once."""
        ended, self._ended = self._ended, []
        return ended

    def _fill(self, plan: Plan) -> None:
        if not self._free:
            return
        line = [(self._rank(r, r.held), r, r.pending[::-1]) for r in self._requests.values()]
        line = [entry for entry in line if entry[2] or not entry[1].wave]
        heapq.heapify(line)
        while self._free and line:
            _, request, pending = heapq.heappop(line)
            pending = pending or _first_wave(request)[::-1]
            self._occupy(plan, request, pending.pop())
            if pending:
                heapq.heappush(line, (self._rank(request, request.held), request, pending))

    def _make_room(self, plan: Plan) -> None:
        if self._free or self.waiting == 0:
            return
        self._make_room_from_wide(plan)
        self._make_room_for_fresh(plan)

    def _make_room_for_fresh(self, plan: Plan) -> None:
        holders = {p.request.id: p.request for p in self._busy.values()}
        room = max(1, int(FRESH_SLOTS * self.slots)) - sum(map(is_fresh, holders.values()))
        rested = [
            p
            for p, since in self._seats.values()
            if p.request.nfe - since >= LEASE_STEPS and not is_fresh(p.request)
        ]
        if room < 1 or not rested:
            return
        new = [r for r in self._requests.values() if r.id not in holders and is_fresh(r)]
        for request in sorted(new, key=lambda r: self._rank(r, 0))[:room]:
            leaving = next((p for p in rested if p.request.priority >= request.priority), None)
            if leaving is None:
                return
            rested.remove(leaving)
            self._replace(plan, leaving, request)

    def _make_room_from_wide(self, plan: Plan) -> None:
        held: dict[str, list[Placement]] = {}
        for placement in self._busy.values():
            held.setdefault(placement.request.id, []).append(placement)
        if len(held) == len(self._busy):
            return
        without = sorted(
            (r for r in self._requests.values() if r.id not in held),
            key=lambda r: self._rank(r, 0),
        )
        for request in without:
            rich = [
                places
                for places in held.values()
                if len(places) > 1 and places[0].request.priority >= request.priority
            ]
            if not rich:
                return
            most = max(rich, key=lambda places: (places[0].request.priority, len(places)))
            leaving = max(most, key=lambda placement: placement.trajectory.index)
            most.remove(leaving)
            held[request.id] = [self._replace(plan, leaving, request)]

    def _replace(self, plan: Plan, leaving: Placement, request: Request) -> Placement:
        self._release(leaving.trajectory)
        plan.park.append(leaving)
        if not leaving.request.held:
            self._turned_out.add(leaving.request.id)
        pending = request.pending or _first_wave(request)
        return self._occupy(plan, request, pending[0])

    def _rank(self, request: Request, held: int) -> tuple[int, int, float, float, int]:
        turned_out = request.id in self._turned_out
        beyond = max(0.0, request.nfe - (self._share - request.share_before))
        place = (-1, 0.0) if turned_out else (held, beyond)
        return (request.priority, *place, request.deadline, request.arrival)

    def _occupy(self, plan: Plan, request: Request, trajectory: Trajectory) -> Placement:
        trajectory.slot = heapq.heappop(self._free)
        placement = Placement(trajectory.slot, request, trajectory)
        self._busy[trajectory.slot] = placement
        self._seats[trajectory.slot] = placement, request.nfe
        self._turned_out.discard(request.id)
        plan.place.append(placement)
        return placement

    def _release(self, trajectory: Trajectory) -> None:
        if trajectory.slot is not None:
            del self._busy[trajectory.slot], self._seats[trajectory.slot]
            heapq.heappush(self._free, trajectory.slot)
            trajectory.slot = None

    def _end(self, request: Request) -> None:
        for trajectory in request.wave:
            self._release(trajectory)
        del self._requests[request.id]
        self._turned_out.discard(request.id)
        self._ended.append(request)


def _first_wave(request: Request) -> list[Trajectory]:
    """Begun with the first slot and not before: a line of wide requests takes no memory."""
    waves.begin_wave(request)
    return request.pending

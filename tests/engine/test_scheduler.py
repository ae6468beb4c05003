"""The scheduler against a fake runner whose trajectories follow a script.

A trajectory's residual and prediction depend on its request, its index and its step only, so the
outcome of every request can be worked out beforehand, wave by wave in lockstep, without slots.
Whatever the slots, neighbours, cancellations and order, the scheduler must come to the same.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.scheduler import LEASE_STEPS, Scheduler
from eqr_core.engine.selection import choose
from eqr_core.engine.trajectory import Request, Trajectory
from eqr_core.engine.turns import FRESH_STEPS
from eqr_core.errors import EqrError, QueueFull

TOLERANCE = 0.1
RIGHT = b"right"


@dataclass
class Script:
    """What the trajectories of one request do."""

    seed: int
    luck: float = 0.3
    settles: dict[int, int] = field(default_factory=dict)
    diverges: dict[int, int] = field(default_factory=dict)
    right: dict[int, int] = field(default_factory=dict)

    def residual(self, index: int, step: int) -> float:
        if step >= self.diverges.get(index, 10**9):
            return math.nan
        settled = step >= self.settles.get(index, 10**9)
        grain = random.Random(f"{self.seed} {index} {step}").random()
        return 0.05 * grain if settled else 0.5 + grain

    def prediction(self, index: int, step: int) -> bytes:
        luck = random.Random(f"{self.seed} {index} {step} answer").random()
        right = step >= self.right.get(index, 10**9) or luck < self.luck
        return RIGHT if right else f"{index}/{step}".encode()


def expected(script: Script, budget: Budget) -> tuple[str, int, int]:
    """Finish reason, chosen index and its steps (−1, 0 of none), worked out in lockstep."""
    started, spent, wave_width = 0, 0, 1
    everyone: list[tuple[float, int, int]] = []
    while started < budget.breadth:
        width = budget.breadth if budget.stop == "exhausted" else wave_width
        width = min(width, budget.breadth - started)
        depth = budget.depth
        if budget.nfe is not None:
            width = min(width, budget.nfe - spent)
            if width < 1:
                break
            depth = min(depth, (budget.nfe - spent) // width)
        alive = list(range(started, started + width))
        residuals: dict[int, list[float]] = {index: [] for index in alive}
        for step in range(1, depth + 1):
            winners = []
            for index in list(alive):
                spent += 1
                residual = script.residual(index, step)
                if math.isnan(residual):
                    alive.remove(index)
                    continue
                residuals[index].append(residual)
                last = residuals[index][-3:]
                score = sum(last) / len(last)
                reached = len(last) == 3 and score <= TOLERANCE
                ends = step == depth or (reached and budget.stop != "exhausted")
                if ends:
                    alive.remove(index)
                    everyone.append((score, index, step))
                right = script.prediction(index, step) == RIGHT
                if (budget.stop == "converged" and reached) or (
                    budget.stop == "verified" and ends and right
                ):
                    winners.append((score, index, step))
            if winners:
                _, index, steps = min(winners)
                return budget.stop, index, steps
        started += width
        wave_width = started
        if budget.stop == "exhausted":
            break
    if not everyone:
        return "diverged", -1, 0
    _, index, steps = min(everyone)
    return "exhausted", index, steps


def scripted(seed: int) -> Script:
    luck = random.Random(seed)
    script = Script(seed)
    for index in range(24):
        if luck.random() < 0.3:
            script.settles[index] = luck.randint(1, 12)
        if luck.random() < 0.15:
            script.diverges[index] = luck.randint(1, 12)
    return script


def restless() -> Script:
    """Trajectories that neither converge nor diverge."""
    return Script(0, luck=0.0)


def make(name: str, budget: Budget, priority: int = 0, deadline: float = math.inf) -> Request:
    return Request(
        id=name,
        budget=budget,
        tolerance=TOLERANCE,
        verify=lambda prediction: prediction == RIGHT,
        priority=priority,
        deadline=deadline,
    )


def tick(scheduler: Scheduler, scripts: dict[str, Script], now: float = 0.0) -> list[Request]:
    plan = scheduler.plan(now)
    scheduler.update(
        [
            (
                place,
                scripts[place.request.id].residual(
                    place.trajectory.index, place.trajectory.steps + 1
                ),
                scripts[place.request.id].prediction(
                    place.trajectory.index, place.trajectory.steps + 1
                ),
            )
            for place in plan.run
        ]
    )
    return scheduler.take_ended()


BUDGETS = st.builds(
    Budget,
    depth=st.integers(1, 14),
    breadth=st.integers(1, 24),
    nfe=st.none() | st.integers(1, 120),
    stop=st.sampled_from(["converged", "verified", "exhausted"]),
)


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(slots=1, queue=6)
        self.scripts: dict[str, Script] = {}
        self.live: dict[str, Request] = {}
        self.ended: set[str] = set()
        self.cancelled: set[str] = set()
        self.parked: set[Trajectory] = set()
        self.stepped: dict[Trajectory, float] = {}
        self.now = 0.0

    @initialize(slots=st.integers(1, 9))
    def begin(self, slots: int) -> None:
        self.scheduler = Scheduler(slots=slots, queue=6)

    @rule(
        budget=BUDGETS,
        seed=st.integers(0, 10**6),
        priority=st.sampled_from([0, 0, 0, 1]),
        patience=st.none() | st.integers(1, 20),
    )
    def add(self, budget: Budget, seed: int, priority: int, patience: int | None) -> None:
        name = f"r{len(self.scripts)}"
        deadline = math.inf if patience is None else self.now + patience
        request = make(name, budget, priority, deadline)
        waiting = sum(r.held == 0 for r in self.live.values())
        assert waiting == self.scheduler.waiting
        if len(self.live) >= self.scheduler.slots + self.scheduler.queue:
            with pytest.raises(QueueFull):
                self.scheduler.add(request)
            return
        self.scripts[name] = scripted(seed)
        self.scheduler.add(request)
        self.live[name] = request

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        held = self.live[name].held
        busy = self.scheduler.busy
        self.scheduler.cancel(name)
        self.scheduler.cancel(name)
        self.cancelled.add(name)
        assert self.scheduler.busy == busy - held
        self.collect(self.scheduler.take_ended())

    @rule(share=st.sampled_from([1.0, 1.0, 0.5, 0.2]))
    def tick(self, share: float = 1.0) -> None:
        """One tick in which only so many of the rows are reached."""
        self.now += 1.0
        before = {name: request.held for name, request in self.live.items()}
        plan = self.scheduler.plan(self.now)
        for place in plan.park:
            assert before[place.request.id] > 1 or place.request.nfe >= FRESH_STEPS
            assert place.trajectory.running
            self.parked.add(place.trajectory)
        for place in plan.place:
            assert place.trajectory.running
            assert place.trajectory.steps == 0 or place.trajectory in self.parked
            self.parked.discard(place.trajectory)
            self.stepped[place.trajectory] = self.now
        self.check_fairness()
        slots = [place.slot for place in plan.run]
        assert len(slots) == len(set(slots)) <= self.scheduler.busy
        run = [place.trajectory for place in plan.run]
        live = [t for request in self.live.values() for t in request.wave if t.slot is not None]
        fresh = {t for r in self.live.values() if r.nfe < FRESH_STEPS for t in r.wave}
        assert {t for t in live if t in fresh} <= set(run)
        assert fresh.intersection(run) or len(run) == self.scheduler.busy
        assert all(0 <= slot < self.scheduler.slots for slot in slots)
        assert all(place.trajectory.running for place in plan.run)
        waited = [self.stepped[trajectory] for trajectory in run]
        assert waited == sorted(waited)
        reached = math.ceil(share * len(plan.run))
        steps = []
        for place in plan.run[:reached]:
            script = self.scripts[place.request.id]
            index, step = place.trajectory.index, place.trajectory.steps + 1
            self.stepped[place.trajectory] = self.now
            steps.append((place, script.residual(index, step), script.prediction(index, step)))
        self.scheduler.update(steps)
        self.collect(self.scheduler.take_ended())

    def check_fairness(self) -> None:
        """Nobody goes without while an equal or less urgent request holds more than one slot."""
        live = [request for request in self.live.values() if request.finish_reason is None]
        without = [request for request in live if request.held == 0]
        if without:
            assert self.scheduler.busy == self.scheduler.slots
        for request in without:
            for other in live:
                assert other.held <= 1 or other.priority < request.priority

    def collect(self, ended: list[Request]) -> None:
        for request in ended:
            assert request.id in self.live
            assert request.id not in self.ended
            self.ended.add(request.id)
            del self.live[request.id]
            self.parked -= set(request.trajectories)
            self.check_end(request)

    def check_end(self, request: Request) -> None:
        assert request.held == 0
        assert not any(trajectory.running for trajectory in request.trajectories)
        assert request.finish_reason is not None
        if request.id in self.cancelled:
            assert request.finish_reason == "cancelled"
        elif request.finish_reason == "deadline":
            assert request.deadline <= self.now
        else:
            chosen = choose(request, "residual")
            found = (chosen.index, chosen.steps) if chosen else (-1, 0)
            script = self.scripts[request.id]
            assert (request.finish_reason, *found) == expected(script, request.budget)

    @invariant()
    def budgets_hold(self) -> None:
        for request in self.live.values():
            budget = request.budget
            assert len(request.trajectories) <= budget.breadth
            assert all(t.steps <= t.depth <= budget.depth for t in request.trajectories)
            if budget.nfe is not None:
                assert request.nfe <= budget.nfe

    @invariant()
    def waves_double(self) -> None:
        for request in self.live.values():
            if not request.wave:
                assert not request.trajectories and request.nfe == 0
                continue
            sizes: list[int] = []
            for trajectory in request.trajectories:
                if trajectory.wave == len(sizes):
                    sizes.append(0)
                sizes[trajectory.wave] += 1
            if request.budget.stop == "exhausted":
                assert len(sizes) == 1
            else:
                full = [max(1, sum(sizes[:i])) for i in range(len(sizes))]
                assert sizes[:-1] == full[:-1]
                assert sizes[-1] <= full[-1]

    @invariant()
    def slots_add_up(self) -> None:
        assert sum(request.held for request in self.live.values()) == self.scheduler.busy
        assert self.scheduler.active == len(self.live)

    def teardown(self) -> None:
        ticks = 0
        while self.live:
            self.tick()
            ticks += 1
            assert ticks < 24 * 14 * 40, "requests do not come to an end"
        assert self.scheduler.busy == 0
        assert self.ended == set(self.scripts)
        plan = self.scheduler.plan(self.now)
        assert not plan.run and not plan.place and not plan.park


TestScheduler = SchedulerMachine.TestCase


def test_breadth_one_does_not_wait_for_breadth_128() -> None:
    scheduler = Scheduler(slots=8, queue=4)
    wide = make("wide", Budget(depth=4096, breadth=128, stop="exhausted"))
    scripts = {"wide": restless(), "narrow": restless()}
    scheduler.add(wide)
    tick(scheduler, scripts)
    assert wide.held == 8
    narrow = make("narrow", Budget(depth=5, breadth=1, stop="exhausted"))
    scheduler.add(narrow)
    ended = [tick(scheduler, scripts) for _ in range(5)]
    assert [request.id for request in ended[-1]] == ["narrow"]
    assert narrow.trajectories[0].steps == 5
    tick(scheduler, scripts)
    assert wide.held == 8


def crowd(slots: int, requests: int, ticks: int) -> tuple[Scheduler, dict[str, Script]]:
    """Requests of one endless trajectory each that have run for a while."""
    scheduler = Scheduler(slots, queue=2 * requests)
    scripts: dict[str, Script] = {}
    for i in range(requests):
        scripts[f"long {i}"] = restless()
        scheduler.add(make(f"long {i}", Budget(depth=4096, breadth=1, stop="exhausted")))
    for _ in range(ticks):
        assert not tick(scheduler, scripts)
    return scheduler, scripts


def found(scheduler: Scheduler, name: str, count: int) -> list[Request]:
    """The requests `name` 0, 1, …, all of which are there."""
    requests = [scheduler.find(f"{name} {i}") for i in range(count)]
    there = [request for request in requests if request is not None]
    assert len(there) == count
    return there


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_a_short_request_waits_for_no_long_ones(slots: int) -> None:
    requests = 3 * slots
    scheduler, scripts = crowd(slots, requests, 4 * FRESH_STEPS * requests // slots)
    assert all(request.nfe >= FRESH_STEPS for request in found(scheduler, "long", requests))
    for i in range(20):
        name = f"short {i}"
        scripts[name] = restless()
        scheduler.add(make(name, Budget(depth=6, breadth=1, stop="exhausted")))
        rows = 0
        for step in range(6):
            plan = scheduler.plan(0.0)
            rows += len(plan.run)
            ended = [request.id for request in tick(scheduler, scripts)]
            assert ended == ([name] if step == 5 else [])
        assert rows <= 6 * 1.5 + 1
        for _ in range(LEASE_STEPS):
            tick(scheduler, scripts)


def test_long_requests_get_a_third_while_short_ones_come_and_go() -> None:
    scheduler, scripts = crowd(8, 8, 2 * FRESH_STEPS)
    before = sum(request.nfe for request in found(scheduler, "long", 8))
    short = 0
    for i in range(200):
        for j in range(2):
            scripts[f"short {i} {j}"] = restless()
            scheduler.add(make(f"short {i} {j}", Budget(depth=4, breadth=1, stop="exhausted")))
        for _ in range(5):
            short += sum(request.nfe for request in tick(scheduler, scripts))
    spent = [request.nfe for request in found(scheduler, "long", 8)]
    assert sum(spent) - before >= 0.3 * (sum(spent) - before + short)
    assert min(spent) >= 0.3 * max(spent), "one of the long ones starves"


def test_who_lost_its_slot_is_the_first_to_get_one() -> None:
    scheduler, scripts = crowd(2, 2, FRESH_STEPS)
    for name, depth in (("short", 3), ("next", 3)):
        scripts[name] = restless()
        scheduler.add(make(name, Budget(depth=depth, breadth=1, stop="exhausted")))
    tick(scheduler, scripts)
    (out,) = (request.id for request in found(scheduler, "long", 2) if not request.held)
    while not (ended := tick(scheduler, scripts)):
        pass
    assert [request.id for request in ended] == ["short"]
    plan = scheduler.plan(0.0)
    assert next(place.request.id for place in plan.place) == out


@pytest.mark.parametrize("stop", ["converged", "verified"])
@pytest.mark.parametrize("slots", [1, 2])
def test_who_got_its_slot_first_has_no_advantage(stop: Stop, slots: int) -> None:
    script = restless()
    script.settles, script.right = {2: 7, 3: 3}, {2: 1, 3: 1}
    request = make("r", Budget(depth=12, breadth=4, stop=stop))
    scheduler = Scheduler(slots=slots, queue=1)
    scheduler.add(request)
    while not tick(scheduler, {"r": script}):
        pass
    first, second = request.trajectories[2:]
    assert (first.outcome, first.steps) == ("cut", 9 if slots == 1 else 5)
    assert (second.outcome, second.steps) == ("converged", 5)
    if slots == 1:
        assert first.score < second.score
    assert choose(request, "residual") is second
    assert (stop, 3, 5) == expected(script, request.budget)


def test_free_slots_are_shared_evenly() -> None:
    scheduler = Scheduler(slots=12, queue=8)
    requests = [make(f"r{i}", Budget(breadth=64, stop="exhausted")) for i in range(3)]
    for request in requests:
        scheduler.add(request)
    scheduler.plan(0.0)
    assert [request.held for request in requests] == [4, 4, 4]


def test_who_has_had_most_stands_behind_when_there_are_more_requests_than_slots() -> None:
    scheduler = Scheduler(slots=2, queue=8)
    scripts: dict[str, Script] = {}
    for name in ("wide", "broad"):
        scheduler.add(make(name, Budget(depth=20, breadth=16, stop="exhausted")))
    scheduler.add(make("narrow", Budget(depth=1, breadth=1, stop="exhausted")))
    scripts = dict.fromkeys(("wide", "broad", "narrow"), restless())
    ended = [[request.id for request in tick(scheduler, scripts)] for _ in range(21)]
    assert ended[20] == ["narrow"]


def test_room_for_as_many_as_slots_and_queue_and_no_wave_before_its_slot() -> None:
    scheduler = Scheduler(slots=6, queue=2)
    requests = [make(f"r{i}", Budget(breadth=1024, stop="exhausted")) for i in range(9)]
    for request in requests[:8]:
        scheduler.add(request)
    with pytest.raises(QueueFull, match="8 requests are there already, 8 of them waiting"):
        scheduler.add(requests[8])
    scheduler.plan(0.0)
    assert [len(request.trajectories) for request in requests] == [1024] * 6 + [0] * 3
    scheduler.cancel("r0")
    scheduler.add(requests[8])
    scheduler.plan(0.0)
    assert len(requests[6].trajectories) == 1024


def test_a_discarded_request_is_not_given_out() -> None:
    scheduler = Scheduler(slots=2, queue=2)
    for name in ("a", "b"):
        scheduler.add(make(name, Budget(breadth=1)))
    scheduler.plan(0.0)
    scheduler.discard("a")
    scheduler.cancel("b")
    assert [request.id for request in scheduler.take_ended()] == ["b"]
    assert scheduler.busy == scheduler.active == 0


def test_order_of_admission() -> None:
    scheduler = Scheduler(slots=1, queue=8)
    scripts: dict[str, Script] = {}
    budget = Budget(depth=1, breadth=1, stop="exhausted")
    for name, priority, deadline in [
        ("late", 1, math.inf),
        ("second", 0, math.inf),
        ("third", 0, math.inf),
        ("hurried", 0, 100.0),
    ]:
        scripts[name] = restless()
        scheduler.add(make(name, budget, priority, deadline))
    order = [request.id for _ in range(4) for request in tick(scheduler, scripts)]
    assert order == ["hurried", "second", "third", "late"]


def test_nfe_cap_shares_what_is_left() -> None:
    request = make("r", Budget(depth=64, breadth=16, nfe=100))
    scripts = {"r": restless()}
    scheduler = Scheduler(slots=4, queue=1)
    scheduler.add(request)
    while not tick(scheduler, scripts):
        pass
    assert [t.depth for t in request.trajectories] == [64, 36]
    assert request.nfe == 100
    assert request.finish_reason == "exhausted"


def test_nfe_below_breadth_shrinks_the_wave() -> None:
    request = make("r", Budget(depth=64, breadth=16, nfe=3, stop="exhausted"))
    scheduler = Scheduler(slots=64, queue=1)
    scheduler.add(request)
    scheduler.plan(0.0)
    assert [t.depth for t in request.trajectories] == [1, 1, 1]


def test_the_same_id_twice() -> None:
    scheduler = Scheduler(slots=1, queue=8)
    scheduler.add(make("r", Budget()))
    with pytest.raises(EqrError, match="'r'"):
        scheduler.add(make("r", Budget()))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("stop", ["converged", "exhausted"])
def test_a_wide_request_comes_to_its_end_under_lasting_overload(slots: int, stop: Stop) -> None:
    """However many new ones come: who waits is soon owed more than those who come later."""
    scheduler = Scheduler(slots=slots, queue=20)
    wide = make("wide", Budget(depth=12, breadth=8, stop=stop))
    scripts = {"wide": restless()}
    scheduler.add(wide)
    ended = 0
    for number in range(4000):
        while scheduler.waiting < 2 * slots:
            name = f"n{len(scripts)}"
            scripts[name] = restless()
            scheduler.add(make(name, Budget(depth=4, breadth=1, stop="exhausted")))
        ended += len(tick(scheduler, scripts, float(number)))
        if wide.finish_reason is not None:
            break
    assert wide.finish_reason == "exhausted"
    assert wide.nfe == 12 * 8
    assert ended > 8, "the others were kept out"

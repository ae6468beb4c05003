"""Fan-out on a real Ray of three nodes on this machine: same answers, whatever is killed."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.exceptions import TaskCancelledError

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.trajectory import Shard
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from service.fanout.cost import Cost, Speed
from service.fanout.fan_out import FanOut
from service.fanout.nodes import nodes_beside
from service.fanout.recall import apart
from service.fanout.wave import TRIES
from service.fanout.worker import Began
from service.orders import Order, order_of
from service.replica import Solver
from service.schemas import SolveAnswer, SolveBody
from service.settings import Settings
from tests.engine import tiny

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 100 * 2**20,
    "include_dashboard": False,
}
OTHERS = 2
"""Nodes beside the one that the solver is on."""
FREE = Cost(Speed(tick=0.0, row=1.0), overhead=0.0)
"""With this, every wave is shared: what pays depends on how busy the machine is."""
BUDGET = Budget(depth=40, breadth=12, stop="exhausted")
REQUEST = SolveRequest(tiny.TASK, tiny.GRID, "tiny", BUDGET, seed=2, noise=0.3, id="a")
DEEP = replace(REQUEST, budget=replace(BUDGET, depth=1024))
"""For a node to die in its middle."""
SLOTS = 32
LONG = replace(REQUEST, budget=replace(BUDGET, depth=4096, breadth=SLOTS * (1 + OTHERS)))
"""Nobody waits for its end."""
SHARD = replace(LONG, budget=replace(LONG.budget, breadth=SLOTS), shard=Shard(SLOTS, 0))
GRID = [list(row) for row in tiny.GRID]
SAME = (
    *("grid", "residual", "converged", "verified", "finish_reason", "iterations", "layers"),
    *("agreement", "confidence", "lost"),
)
TITLE = b"ray::run_shard"
"""What Ray names a process that runs a shard."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    config = tiny.config()
    card = Card("tiny", "sudoku", config, ("4x4",), tolerance=1e-9)
    save_checkpoint(path, tiny.weights(config, gain=3.0), card)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    before = dict(os.environ)
    os.environ.update(
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        PYTHONPATH=str(Path(__file__).parents[2]),
        PYTHONWARNINGS="",
    )
    one = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(OTHERS):
            one.add_node(**NODE)
        ray.init(address=one.address, log_to_driver=False)
        yield one
    finally:
        ray.shutdown()
        one.shutdown()  # type: ignore[no-untyped-call]
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def solver(cluster: Cluster, folder: Path) -> Iterator[Solver]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.fanout.fan_out.WATCH_SECONDS", 0.5)
        one = Solver(Settings(models=(str(folder),), cpus=1, slots=SLOTS))
        yield one
    one._runner.stop()
    assert one._fanout is not None
    one._fanout.stop()


@pytest.fixture
def fanout(solver: Solver) -> FanOut:
    """Of `solver`, with all workers there and idle."""
    found = solver._fanout
    assert found is not None
    wait(lambda: found._in_flight == 0 and free(found) == OTHERS)
    wait(lambda: found.workers == OTHERS)
    wait(lambda: not solver._engine.stats.requests_active)
    found._costs["tiny", "4x4"] = FREE
    return found


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[[SolveRequest], Answer]:
    engine = Engine([folder], slots=SLOTS)
    return functools.cache(lambda request: engine.solve([request])[0])


def wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.05)


def free(fanout: FanOut) -> int:
    """Shards for which the other nodes have CPUs to spare now."""
    return nodes_beside(fanout._launcher.avoided, fanout._settings).free


def shards(solver: Solver) -> dict[str, int]:
    """How many shards ended how, so far."""
    (metric,) = solver._metrics._shards.collect()
    return {
        one.labels["outcome"]: int(one.value)
        for one in metric.samples
        if one.name.endswith("_total")
    }


def since(before: dict[str, int], solver: Solver) -> dict[str, int]:
    now = shards(solver)
    return {name: n - before.get(name, 0) for name, n in now.items() if n != before.get(name, 0)}


def moved(before: dict[str, int], solver: Solver) -> int:
    """Shards that did not end where they were first sent.

    One that a slow worker had not begun when it was killed may have been taken back before.
    """
    ended = since(before, solver)
    return ended.get("retried", 0) + ended.get("taken_back", 0)


def raylets(cluster: Cluster) -> dict[int, Any]:
    """Nodes of this cluster by the process id of their raylet."""
    return {
        infos[0].process.pid: node
        for node in cluster.list_all_nodes()  # type: ignore[no-untyped-call]
        for kind, infos in node.all_processes.items()
        if kind == "raylet"
    }


def running(cluster: Cluster) -> dict[int, Any]:
    """Processes that run shards now, and the nodes of this cluster that they are on."""
    nodes, found = raylets(cluster), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if not (folder / "cmdline").read_bytes().startswith(TITLE):
                continue
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in nodes:
            found[int(folder.name)] = nodes[parent]
    return found


def disturbed(fanout: FanOut, cluster: Cluster, disturb: Callable[[], None]) -> Answer:
    """The answer to `DEEP`, in the middle of which `disturb` was called."""
    done = False

    async def once() -> Answer:
        nonlocal done
        async with aclosing(fanout.stream(DEEP)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
                if not done and event.iteration > 5 and len(running(cluster)) == OTHERS:
                    done = True
                    await asyncio.to_thread(disturb)
        raise AssertionError("no answer")

    end = time.monotonic() + 300
    while True:
        answer = asyncio.run(once())
        if done:
            return answer
        # A worker was not there before the request was over.
        assert time.monotonic() < end, "the shards never ran beside each other"


def assert_same(shared: Answer, expected: Answer) -> None:
    for name in SAME:
        assert getattr(shared, name) == getattr(expected, name), name
    if expected.finish_reason == "exhausted":
        assert shared.trajectories == expected.trajectories
        assert shared.nfe == expected.nfe


def test_the_workers_were_found_and_measured(solver: Solver, cluster: Cluster) -> None:
    assert solver._fanout is not None
    fanout = solver._fanout
    wait(lambda: fanout.workers == OTHERS)
    cost = fanout._costs["tiny", "4x4"]
    assert 0 < cost.overhead < 10
    assert 0 < cost.speed.seconds(16, 1, 16) < 10
    assert not fanout.suits(replace(REQUEST, budget=Budget(depth=1, breadth=2)))
    assert fanout.suits(replace(REQUEST, budget=Budget(depth=4096, breadth=1024)))
    full = replace(REQUEST, grid=tiny.FULL, budget=Budget(depth=4096, breadth=1024))
    assert not fanout.suits(full)


def test_an_answer_is_the_same_with_fan_out(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    before = shards(solver)
    whole = alone(replace(REQUEST, history=True))
    scores = [min(sum(t.history[i - 2 : i + 1]) / 3 for i in range(2, 40))
              for t in whole.trajectories]  # fmt: skip
    late = min(scores[:4]) * (1 - 1e-9)
    assert min(scores[4:]) < late, "with another seed no later wave wins"
    for budget, selection in (
        (BUDGET, "majority"),
        (replace(BUDGET, stop="converged", tolerance=late), "residual"),
        (replace(BUDGET, stop="converged", nfe=150), "residual"),
        (replace(BUDGET, stop="verified"), "residual"),
    ):
        request = replace(REQUEST, budget=budget, selection=selection)  # type: ignore[arg-type]
        assert fanout.suits(request)
        assert_same(asyncio.run(fanout.submit(request)), alone(request))
    ended = since(before, solver)
    assert ended.keys() <= {"done", "cut", "taken_back"}
    assert ended["done"] >= OTHERS


def test_a_killed_worker_changes_nothing(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    before = shards(solver)

    def kill() -> None:
        (pid, *_) = running(cluster)
        os.kill(pid, signal.SIGKILL)

    assert_same(disturbed(fanout, cluster, kill), alone(DEEP))
    assert moved(before, solver)


def test_a_recalled_shard_ends_without_an_answer(
    solver: Solver, fanout: FanOut, cluster: Cluster
) -> None:
    end = time.monotonic() + 3600
    seen = []
    with fanout._launcher.shard(SHARD, end) as reports:
        for report in reports:
            seen.append(ray.get(report))
            if isinstance(seen[-1], Progress):
                break
    seen += [ray.get(report) for report in reports]
    assert isinstance(seen[0], Began)
    assert not any(isinstance(one, Answer) for one in seen), "it ran to its end"
    assert ray.get(reports.completed()) is None


def test_shards_are_recalled_at_any_moment(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    dice, before = random.Random(0), shards(solver)

    async def leave(name: str, after: float) -> None:
        task = asyncio.create_task(fanout.submit(replace(LONG, id=name)))
        await asyncio.sleep(after)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def leave_often() -> None:
        for i in range(10):
            await asyncio.gather(*(leave(f"{i}{j}", dice.uniform(0.0, 0.1)) for j in range(3)))

    asyncio.run(leave_often())
    assert since(before, solver).keys() == {"cancelled"}
    wait(lambda: not running(cluster))
    wait(lambda: not solver._engine.stats.requests_active)
    assert_same(asyncio.run(fanout.submit(REQUEST)), alone(REQUEST))


def test_cancelling_stops_the_outer_steps(solver: Solver, fanout: FanOut, cluster: Cluster) -> None:
    before = shards(solver)

    async def leave() -> None:
        task = asyncio.create_task(fanout.submit(LONG))
        while len(running(cluster)) < OTHERS:
            assert not task.done()
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    wait(lambda: not running(cluster))
    assert since(before, solver) == {"cancelled": OTHERS}
    wait(lambda: not solver._engine.stats.requests_active)


def test_who_recalls_shards_may_die_and_come_back(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    def kill() -> None:
        ray.kill(fanout._launcher._recalls._board, no_restart=False)

    assert_same(disturbed(fanout, cluster, kill), alone(DEEP))
    test_cancelling_stops_the_outer_steps(solver, fanout, cluster)


def test_a_deadline_ends_all_of_it(solver: Solver, fanout: FanOut, cluster: Cluster) -> None:
    budget = replace(LONG.budget, deadline_ms=2000)
    answer = asyncio.run(fanout.submit(replace(LONG, budget=budget)))
    assert answer.finish_reason == "deadline"
    assert answer.started >= 4
    wait(lambda: not running(cluster))


def test_a_stream_tells_of_the_leading_shard(fanout: FanOut, cluster: Cluster) -> None:
    async def listen() -> list[Progress | Answer]:
        async with aclosing(
            fanout.stream(replace(REQUEST, budget=replace(BUDGET, depth=200)))
        ) as e:
            return [event async for event in e]

    *progress, answer = asyncio.run(listen())
    assert isinstance(answer, Answer)
    assert progress
    assert all(isinstance(one, Progress) for one in progress)


def test_what_is_started_apart_outlives_who_started_it(cluster: Cluster, tmp_path: Path) -> None:
    @ray.remote
    def child(path: Path) -> str:
        path.touch()
        while path.exists():
            time.sleep(0.05)
        return "to its end"

    class Parent:
        async def start(self, path: Path) -> None:
            self.child = apart(child.remote, path)
            await asyncio.Event().wait()

        async def found(self) -> str:
            told: str = await self.child
            return told

    path = tmp_path / "running"
    parent: Any = ray.remote(Parent).remote()
    started = parent.start.remote(path)
    wait(path.exists)
    ray.cancel(started)
    with pytest.raises(TaskCancelledError):
        ray.get(started)
    path.unlink()
    assert ray.get(parent.found.remote()) == "to its end"


def test_what_no_worker_can_run_is_lost_and_told(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    before, good = shards(solver), fanout._launcher._packed["tiny"]
    fanout._launcher._packed["tiny"] = ("damaged", ray.put(b"no checkpoint"))

    answer: Answer | None = None

    def lost() -> bool:
        nonlocal before, answer
        before = shards(solver)
        answer = asyncio.run(fanout.submit(DEEP))
        return "taken_back" not in since(before, solver)  # or the solver was done before a worker

    try:
        wait(lost)
    finally:
        fanout._launcher._packed["tiny"] = good
    assert answer is not None
    assert since(before, solver) == {"retried": (TRIES - 1) * OTHERS, "lost": OTHERS}
    assert (answer.lost, answer.started, answer.finish_reason) == (8, 4, "exhausted")
    assert answer.trajectories == alone(DEEP).trajectories[:4]


def test_a_node_of_another_kind_gets_no_more_shards(
    solver: Solver,
    fanout: FanOut,
    alone: Callable[[SolveRequest], Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ray.get_runtime_context().get_node_id()
    pair = replace(REQUEST, budget=replace(BUDGET, breadth=2))
    before = shards(solver)

    def told() -> bool:
        assert_same(asyncio.run(fanout.submit(pair)), alone(pair))
        return "unlike" in since(before, solver)  # or the solver was done before a worker

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "arithmetic", lambda engine, model: "another")
            wait(told)
            fresh = FanOut(solver._runner, fanout._settings, lambda outcome: None)
            wait(lambda: len(fresh._launcher.avoided) == 1 + OTHERS)
            fresh.stop()
            assert fresh.workers == 0
        assert len(fanout._launcher.avoided) == 2
        wait(lambda: fanout.workers == OTHERS - 1)
        before = shards(solver)
        assert_same(asyncio.run(fanout.submit(DEEP)), alone(DEEP))
        assert "unlike" not in since(before, solver)
    finally:
        fanout._launcher.avoided = frozenset()
        fanout._launcher.avoid(here)


def test_what_nobody_takes_runs_here(
    solver: Solver,
    fanout: FanOut,
    alone: Callable[[SolveRequest], Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    @ray.remote(num_cpus=1, max_retries=0)
    def hold(path: Path) -> None:
        while path.exists():
            time.sleep(0.05)

    held = tmp_path / "held"
    held.touch()
    before = shards(solver)
    own = {"ray.io/node-id": f"!{ray.get_runtime_context().get_node_id()}"}
    holding = [hold.options(label_selector=own).remote(held) for _ in range(OTHERS)]
    try:
        wait(lambda: free(fanout) == 0)
        # They were free when it last looked.
        monkeypatch.setattr(
            "service.fanout.fan_out.nodes_beside",
            lambda avoided, settings: replace(nodes_beside(avoided, settings), free=OTHERS),
        )
        wait(lambda: fanout.workers == OTHERS)
        assert_same(asyncio.run(fanout.submit(REQUEST)), alone(REQUEST))
    finally:
        held.unlink()
        ray.get(holding)
    assert since(before, solver) == {"taken_back": OTHERS}


def test_a_killed_node_changes_nothing(
    solver: Solver, fanout: FanOut, cluster: Cluster, alone: Callable[[SolveRequest], Answer]
) -> None:
    before = shards(solver)

    def kill() -> None:
        (node, *_) = running(cluster).values()
        cluster.remove_node(node, allow_graceful=False)

    assert_same(disturbed(fanout, cluster, kill), alone(DEEP))
    assert moved(before, solver)
    cluster.add_node(**NODE)
    wait(lambda: fanout.workers == OTHERS)


def test_a_replica_of_serve_fans_out(
    cluster: Cluster, folder: Path, alone: Callable[[SolveRequest], Answer]
) -> None:
    kind = serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)(Solver)
    wide = {"depth": 100, "breadth": 12, "stop": "exhausted"}
    serve.start(proxy_location="Disabled")
    try:
        handle = serve.run(
            kind.bind(Settings(models=(str(folder),), cpus=1, slots=SLOTS)),
            name="fanout",
        )

        def order(**fields: Any) -> Order:
            body = SolveBody.model_validate({"grid": GRID, "seed": 2, "noise": 0.3, **fields})
            return order_of(body, 3.6e6)

        def solve(**fields: Any) -> SolveAnswer:
            found = handle.solve.remote(order(**fields)).result()
            assert isinstance(found, SolveAnswer), found
            return found

        def collected() -> tuple[str, dict[str, float]]:
            name, metrics = handle.collect.remote().result()
            return name, {
                one.labels["outcome"]: float(one.value)
                for metric in metrics
                for one in metric.samples
                if one.name == "eqr_fanout_tasks_total"
            }

        def done() -> float:
            return collected()[1].get("done", 0.0)

        expected = alone(replace(REQUEST, budget=Budget(**wide)))  # type: ignore[arg-type]

        def shared() -> bool:
            answer = solve(budget=wide)
            assert (answer.text, answer.residual) == (expected.text, expected.residual)
            assert (answer.nfe, answer.breadth.started) == (expected.nfe, expected.started)
            return done() > 0

        wait(shared)
        name, before = collected()

        def left_in_the_middle() -> bool:
            left = handle.solve.remote(order(budget={**wide, "depth": 4096, "breadth": 96}))
            again = time.monotonic() + 5  # it shares nothing if no worker was free of late
            while not running(cluster) and time.monotonic() < again:
                time.sleep(0.05)
            left.cancel()  # type: ignore[no-untyped-call]
            wait(lambda: not running(cluster))
            found = collected()[1].get("cancelled", 0.0)
            return found >= before.get("cancelled", 0.0) + 5 * OTHERS

        wait(left_in_the_middle)
        assert shared()
        assert collected()[0] == name, "the replica has died"
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]

"""What the cluster has for shards: workers beside this node, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ray

from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.trajectory import Shard
from eqr_core.errors import EqrError
from eqr_core.tasks.base import Task
from service.fanout_cost import Cost, Speed
from service.fanout_worker import Report, Unlike
from service.settings import Settings

PROBE_DEPTH = 4
PROBE_ROWS = 16
PROBES = 3


class CannotMeasure(EqrError):
    """A worker did not run a shard as this process would have."""


@dataclass(frozen=True)
class Nodes:
    """The nodes beside this one."""

    ids: frozenset[str]
    room: int
    """Shards that they could run at a time."""


def other_nodes(settings: Settings) -> Nodes:
    """The cluster as Ray sees it now. Blocks for a moment."""
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    others = [node for node in nodes if node["Alive"] and node["NodeID"] != here]
    room = sum(_fits(node["Resources"], settings) for node in others)
    return Nodes(frozenset(node["NodeID"] for node in others), room)


def free_workers(settings: Settings) -> int:
    """Shards for which the cluster has CPUs and GPUs to spare now. Blocks for a moment."""
    return _fits(ray.available_resources(), settings)  # type: ignore[no-untyped-call]


def _fits(resources: dict[str, float], settings: Settings) -> int:
    fits = int(resources.get("CPU", 0.0) / settings.fanout_cpus)
    if settings.fanout_gpus:
        fits = min(fits, int(resources.get("GPU", 0.0) / settings.fanout_gpus))
    return fits


def measure(
    run: Callable[[SolveRequest], Iterator[Report]], task: Task, model: str, slots: int
) -> Cost:
    """Cost of shards of `model` for `task`'s example, on a worker that is warm by then.

    Blocks until a worker has run them. CannotMeasure, and what Ray raises.
    """
    rows = max(2, min(slots, PROBE_ROWS))

    def best(breadth: int) -> tuple[float, float]:
        budget = Budget(depth=PROBE_DEPTH, breadth=breadth, stop="exhausted")
        asked = SolveRequest(task, task.example, model, budget, shard=Shard(0, 0))
        found = [_timed(run(asked)) for _ in range(PROBES)]
        return min(steps for steps, _ in found), min(overhead for _, overhead in found)

    best(1)
    few, overhead = best(1)
    many, _ = best(rows)
    return Cost(Speed.between((1, few / PROBE_DEPTH), (rows, many / PROBE_DEPTH)), overhead)


def _timed(reports: Iterator[Report]) -> tuple[float, float]:
    """Seconds of a shard in the worker's slots, and seconds beside them."""
    begin = time.monotonic()
    for report in reports:
        if isinstance(report, Answer):
            whole = time.monotonic() - begin
            return report.solve_seconds, max(0.0, whole - report.solve_seconds)
        if isinstance(report, Unlike):
            raise CannotMeasure(f"a worker computes with {report.arithmetic}")
    raise CannotMeasure("a worker gave no answer")

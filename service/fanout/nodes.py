"""What the cluster has for shards: workers beside this node, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Set
from contextlib import closing
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node

from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.trajectory import Shard
from eqr_core.errors import EqrError
from eqr_core.tasks.base import Task
from service.fanout.cost import Cost, Speed
from service.fanout.worker import Report, Unlike
from service.settings import Settings

PROBE_DEPTH = 4
PROBE_ROWS = 16
PROBES = 3


class CannotMeasure(EqrError):
    """No worker has run a shard."""


class UnlikeNode(CannotMeasure):
    """The node of that id computes otherwise than this process."""

    def __init__(self, node: str, arithmetic: str) -> None:
        super().__init__(f"node {node} computes with {arithmetic}")
        self.node = node


@dataclass(frozen=True)
class Nodes:
    """The nodes that may be given shards."""

    ids: frozenset[str]
    room: int
    """Shards that they could run at a time."""
    free: int
    """Shards for which they have CPUs and GPUs to spare now."""


def nodes_beside(avoided: Set[str], settings: Settings) -> Nodes:
    """The cluster as Ray sees it now, but for the nodes of those ids. Blocks for a moment."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    whole = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    ids = frozenset(whole.keys() - avoided)
    # What Ray has in public is the sum over all nodes.
    spare = available_resources_per_node()  # type: ignore[no-untyped-call]
    return Nodes(
        ids,
        room=sum(_fits(whole[node], settings) for node in ids),
        free=sum(_fits(spare.get(node, {}), settings) for node in ids),
    )


def _fits(resources: dict[str, float], settings: Settings) -> int:
    fits = int(resources.get("CPU", 0.0) / settings.fanout_cpus)
    if settings.fanout_gpus:
        fits = min(fits, int(resources.get("GPU", 0.0) / settings.fanout_gpus))
    return fits


def measure(
    run: Callable[[SolveRequest], Generator[Report]], task: Task, model: str, slots: int
) -> Cost:
    """Cost of shards of `model` for `task`'s example, on a worker that is warm by then.

    Blocks until a worker has run them. CannotMeasure, UnlikeNode, and what Ray raises.
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


def _timed(reports: Generator[Report]) -> tuple[float, float]:
    """Seconds of a shard in the worker's slots, and seconds beside them."""
    begin = time.monotonic()
    with closing(reports):
        for report in reports:
            if isinstance(report, Answer):
                whole = time.monotonic() - begin
                return report.solve_seconds, max(0.0, whole - report.solve_seconds)
            if isinstance(report, Unlike):
                raise UnlikeNode(report.node, report.arithmetic)
    raise CannotMeasure("a worker gave no answer")

"""Prometheus metrics (DESIGN section 5), kept where things happen, merged where they are asked.

Each process of the service keeps its own registry. ``GET /metrics`` asks every solver and every
ingress replica for its metrics and shows them all, told apart by the label `replica`; sum over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from eqr_core.engine.answer import Answer
from eqr_core.engine.stats import Stats, Tick

MEDIA_TYPE = CONTENT_TYPE_LATEST

ITERATION_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 4096)
NFE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
RESIDUAL_BUCKETS = (1e-7, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
SECONDS_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)  # fmt: skip

Collected = list[Metric]
"""What one process has counted; plain objects that travel between processes."""


class SolverMetrics:
    """What one solver replica counts, from the moment that `since` describes."""

    def __init__(self, since: Stats | None = None) -> None:
        self._since = since
        self._registry = CollectorRegistry()
        self._tick_seconds = Histogram(
            "eqr_tick_seconds", "Duration of a tick that ran outer steps.",
            buckets=SECONDS_BUCKETS, registry=self._registry,
        )  # fmt: skip
        model = ("task", "model")
        self._iterations = self._histogram(
            "eqr_iterations_to_converge", "Iterations of converged answers.",
            ITERATION_BUCKETS, model,
        )  # fmt: skip
        self._residual = self._histogram(
            "eqr_final_residual", "Residual of the answers.", RESIDUAL_BUCKETS, model
        )
        self._nfe = self._histogram("eqr_solve_nfe", "NFE of a solve.", NFE_BUCKETS, model)
        self._solve = self._histogram(
            "eqr_solve_seconds", "Time of a solve in the engine's slots.", SECONDS_BUCKETS, model
        )
        self._queue = self._histogram(
            "eqr_queue_seconds", "Time of a solve in the engine's queue.", SECONDS_BUCKETS, model
        )
        self._solves = Counter(
            "eqr_solves_total", "Solves that ended, by how they ended.",
            (*model, "finish_reason", "verified"), registry=self._registry,
        )  # fmt: skip
        self._shards = Counter(
            "eqr_fanout_tasks_total", "Shards of requests that were given to workers.",
            ("outcome",), registry=self._registry,
        )  # fmt: skip

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def observe(self, answer: Answer) -> None:
        """Count a solve that gave `answer`."""
        labels = (answer.task, answer.model)
        self._count(labels, answer.finish_reason, answer.verified)
        if not answer.nfe:  # a full grid, its own answer: no solve that the others compare with
            return
        if answer.converged:
            self._iterations.labels(*labels).observe(answer.iterations)
        if math.isfinite(answer.residual):
            self._residual.labels(*labels).observe(answer.residual)
        self._nfe.labels(*labels).observe(answer.nfe)
        self._solve.labels(*labels).observe(answer.solve_seconds)
        self._queue.labels(*labels).observe(answer.queue_seconds)

    def observe_unanswered(self, task: str, model: str, finish_reason: str) -> None:
        """Count a solve without an answer: its client went away, or its deadline was too near."""
        self._count((task, model), finish_reason, False)

    def count_shard(self, outcome: str) -> None:
        """Count what became of a shard on a worker (docs/service.md lists the outcomes)."""
        self._shards.labels(outcome).inc()

    def observe_tick(self, tick: Tick) -> None:
        """Count a tick; called in the engine's thread."""
        self._tick_seconds.observe(tick.seconds)

    def _count(self, labels: tuple[str, str], finish_reason: str, verified: bool) -> None:
        self._solves.labels(*labels, finish_reason, str(verified).lower()).inc()

    def collect(self, stats: Stats) -> Collected:
        """All metrics of this process as they are now."""
        return [*self._registry.collect(), *_of_engine(stats, self._since)]


def _of_engine(stats: Stats, since: Stats | None) -> Iterator[Metric]:
    steps = stats.outer_steps - (since.outer_steps if since else 0)
    yield CounterMetricFamily("eqr_outer_steps_total", "Outer steps over all trajectories.", steps)
    trajectories = CounterMetricFamily(
        "eqr_trajectories_total", "Trajectories that ended, by how they ended.", labels=["outcome"]
    )
    for outcome, count in stats.trajectories.items():
        before = since.trajectories.get(outcome, 0) if since else 0
        trajectories.add_metric([outcome], count - before)
    yield trajectories
    yield GaugeMetricFamily("eqr_slots", "Slots of the engine.", stats.slots)
    yield GaugeMetricFamily("eqr_slots_busy", "Slots that hold a trajectory.", stats.slots_busy)
    yield GaugeMetricFamily(
        "eqr_requests_waiting", "Requests that wait for a slot.", stats.requests_waiting
    )


class IngressMetrics:
    """What one ingress replica counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rejected = Counter(
            "eqr_requests_rejected_total", "Requests that got a problem document.",
            ("code",), registry=self._registry,
        )  # fmt: skip
        self._hits = Counter(
            "eqr_cache_hits_total", "Solves whose answer was kept or just being made.",
            registry=self._registry,
        )  # fmt: skip
        self._misses = Counter(
            "eqr_cache_misses_total", "Solves that asked the cache in vain.",
            registry=self._registry,
        )  # fmt: skip

    def count_cache(self, hit: bool) -> None:
        """Count a solve that asked the cache."""
        (self._hits if hit else self._misses).inc()

    def reject(self, code: str) -> None:
        """Count a request that was refused with `code`."""
        self._rejected.labels(code).inc()

    def collect(self) -> Collected:
        """All metrics of this process as they are now."""
        return list(self._registry.collect())


def store_metrics(jobs: Mapping[str, int] | None) -> Collected:
    """What the store tells: how many jobs are in which state; None where it does not answer."""
    up = GaugeMetricFamily("eqr_store_up", "Whether the store answers.", float(jobs is not None))
    if jobs is None:
        return [up]
    states = GaugeMetricFamily("eqr_jobs", "Jobs that have not ended, by state.", labels=["state"])
    for state, count in jobs.items():
        states.add_metric([state], count)
    return [up, states]


def exposition(parts: Iterable[tuple[str, Collected]]) -> bytes:
    """Prometheus text of (replica, metrics) pairs: one family a name, one `replica` a part."""
    families: dict[str, Metric] = {}
    for replica, metrics in parts:
        for metric in metrics:
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    family.add_sample(
                        sample.name, {**sample.labels, "replica": replica}, sample.value
                    )
    return generate_latest(_Fixed(families))


class _Fixed:
    """What `generate_latest` reads of a registry."""

    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families.values()

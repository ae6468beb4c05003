"""What a load's samples come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from service.bench.load import ANSWERED, Item, Load, Sample
from service.bench.puzzles import ALL

PERCENTS = (50, 95, 99)


def summarise(load: Load, slo_seconds: float) -> dict[str, Any]:
    """The document of a load: plain values, latencies in milliseconds, None where there is nothing.

    Counts and latencies are of the requests that were meant to go within the measured time;
    throughput and goodput are of the puzzles answered within it, goodput of those no later than
    `slo_seconds` after they were meant to go and not cut by their deadline.
    """
    plan = load.plan
    first = plan.warm_up_seconds
    last = min(first + plan.seconds, load.now) if load.interrupted else first + plan.seconds
    seconds = max(last - first, 1e-9)
    measured = [one for one in load.samples if first <= one.meant < last]
    ended = [one for one in load.samples if first <= one.ended < last]
    items = [item for one in measured for item in one.items]
    answered = [item for item in items if item.code == ANSWERED]
    return {
        "server": plan.server,
        "endpoint": plan.endpoint,
        "loop": "closed" if plan.rate is None else "open",
        "rate": plan.rate,
        "concurrency": plan.concurrency if plan.rate is None else None,
        "puzzles_per_request": plan.per_request,
        "budget": dict(plan.budget),
        "seconds": seconds,
        "interrupted": load.interrupted,
        "requests": len(measured),
        "in_flight_at_end": load.in_flight,
        "puzzles": len(items),
        "answered": len(answered),
        "cut": sum(item.cut for item in items),
        "shed": sum(item.shed for item in items),
        "errors": sum(item.code != ANSWERED and not item.shed for item in items),
        "codes": dict(Counter(item.code for item in items).most_common()),
        "throughput": _answered(ended) / seconds,
        "goodput": _good(one for one in ended if one.latency <= slo_seconds) / seconds,
        "slo_ms": slo_seconds * 1e3,
        "latency_ms": _percentiles(one.latency for one in measured if _has_answer(one)),
        "shed_latency_ms": _percentiles(one.latency for one in measured if _is_shed(one)),
        "added_ms": _percentiles(_added(measured)) if plan.endpoint == "solve" else None,
        "send_lag_ms": _percentiles(one.sent - one.meant for one in measured),
        **_quality(answered),
        "bands": [_band(name, measured) for name in _bands(items)],
    }


def _quality(answered: Sequence[Item]) -> dict[str, float | None]:
    def mean(values: Iterable[float]) -> float | None:
        return sum(values) / len(answered) if answered else None

    return {
        "accuracy": mean(item.correct for item in answered),
        "verified": mean(item.verified for item in answered),
        "converged": mean(item.converged for item in answered),
        "mean_iterations": mean(item.iterations for item in answered),
        "mean_nfe": mean(item.nfe for item in answered),
    }


def _band(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    pairs = [(one, item) for one in samples for item in one.items if item.band == name]
    answered = [item for _, item in pairs if item.code == ANSWERED]
    latencies = (one.latency for one, item in pairs if item.code == ANSWERED)
    return {
        "rating": name,
        "puzzles": len(pairs),
        "answered": len(answered),
        "latency_ms": _percentiles(latencies),
        **_quality(answered),
    }


def _bands(items: Iterable[Item]) -> list[str]:
    """Names of bands, the lowest ratings first."""
    names = {item.band for item in items}
    return sorted(names, key=lambda name: int("0" + name.partition("-")[0].strip(ALL)))


def _answered(samples: Iterable[Sample]) -> int:
    return sum(item.code == ANSWERED for one in samples for item in one.items)


def _good(samples: Iterable[Sample]) -> int:
    return sum(item.code == ANSWERED and not item.cut for one in samples for item in one.items)


def _has_answer(sample: Sample) -> bool:
    return any(item.code == ANSWERED for item in sample.items)


def _is_shed(sample: Sample) -> bool:
    return all(item.shed for item in sample.items)


def _added(samples: Iterable[Sample]) -> Iterable[float]:
    """Seconds of each answer that were not spent in the engine's queue or slots."""
    for one in samples:
        for item in one.items:
            if item.code == ANSWERED:
                yield one.latency - item.engine_seconds


def _percentiles(seconds: Iterable[float]) -> dict[str, float] | None:
    """Percentiles, mean and maximum in milliseconds; None of nothing."""
    values = 1e3 * np.fromiter(seconds, dtype=np.float64)
    if not len(values):
        return None
    told = {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTS}
    return {**told, "mean": float(values.mean()), "max": float(values.max())}

"""How many solvers there should be: Serve's controller asks, again and again.

The controller takes this module by value, so it imports nothing of the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HEADROOM = 0.8
"""Solvers that are to be given up must leave the others no busier than this."""


class BacklogPolicy:
    """Enough solvers to work off what is in hand within `seconds`; see `Load.report`.

    Work in hand starts solvers; fewer are wanted only when those that remain would be idle for a
    fifth of their time. The limits and the patience are Serve's (`AutoscalingConfig`).
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Serve's `AutoscalingContext` → how many solvers, and no state."""
        metrics: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        reports = [metrics.get(name, {}) for name in ("nfe", "busy", "nfe_per_second")]
        running = context.current_num_replicas
        return self._wanted(running, *(report.values() for report in reports)), {}

    def _wanted(
        self, running: int, nfe: Iterable[float], busy: Iterable[float], speeds: Iterable[float]
    ) -> float:
        measured = [speed for speed in speeds if speed > 0]
        in_hand = sum(nfe)
        if not measured:  # nothing has run yet, or no report has come
            return running if in_hand else min(running, 1)
        speed = sum(measured) / len(measured)
        return max(in_hand / (speed * self._seconds), min(running, sum(busy) / HEADROOM))

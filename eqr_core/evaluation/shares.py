"""Counts out of totals, with the uncertainty that a finite number of puzzles leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Z = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """`count` out of `total`."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """count / total; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share; (0, 1) of nothing."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.count / self.total
        scale = 1 + Z * Z / n
        middle = (p + Z * Z / (2 * n)) / scale
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / scale
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": self.total,
            "exact": self.count,
            "exact_accuracy": self.value,
            "exact_interval": list(self.interval),
        }

from __future__ import annotations

import pytest

from eqr_core.evaluation.shares import Share


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_as_published(count: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, and the closed form at 0 and at n."""
    assert Share(count, total).interval == pytest.approx((low, high), abs=1e-4)


def test_nothing_counted_says_nothing() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0.0, 1.0)

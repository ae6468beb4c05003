"""When fan-out pays, and how a wave is shared; no Ray."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.trajectory import Request
from eqr_core.engine.waves import begin_wave
from service.fanout.cost import Cost, Speed, shares, widest_wave

CPU = Speed(tick=0.0, row=0.002)
GPU = Speed(tick=0.01, row=0.0)

widths = st.integers(1, 1024)
seconds = st.floats(0, 10)
speeds = st.builds(Speed, tick=seconds, row=seconds)


@given(widths, st.integers(1, 4096), speeds, seconds, st.integers(0, 64), st.integers(1, 128))
def test_a_wave_is_covered_and_no_shard_is_larger_than_a_worker(
    width: int, depth: int, speed: Speed, overhead: float, workers: int, slots: int
) -> None:
    parts = shares(width, depth, Cost(speed, overhead), workers=workers, slots=slots)
    assert sum(parts) == width
    assert min(parts) >= 1
    assert all(part <= min(parts[0], slots) for part in parts[1:])
    if workers == 0:
        assert parts == [width]
    if len(parts) > 1:
        alone = speed.seconds(width, depth, slots)
        assert speed.seconds(parts[0], depth, slots) + overhead < alone


@pytest.mark.parametrize(
    ("speed", "width", "depth", "overhead", "expected"),
    [
        (CPU, 8, 16, 0.02, [2, 2, 2, 2]),
        (CPU, 8, 16, 0.3, [8]),
        (CPU, 8, 160, 0.3, [2, 2, 2, 2]),
        (CPU, 1, 4096, 0.0, [1]),
        (CPU, 2, 4096, 0.0, [1, 1]),
        (GPU, 64, 100, 0.02, [64]),
        (GPU, 128, 100, 0.02, [64, 64]),
        (GPU, 1024, 100, 0.02, [256, *[64] * 12]),
    ],
)
def test_it_is_shared_where_that_is_quicker(
    speed: Speed, width: int, depth: int, overhead: float, expected: list[int]
) -> None:
    cost = Cost(speed, overhead)
    assert shares(width, depth, cost, workers=3, slots=64) == expected


def test_two_measurements_give_a_speed() -> None:
    assert Speed.between((1, 3.0), (5, 7.0)) == Speed(tick=2.0, row=1.0)
    assert Speed.between((1, 3.0), (5, 2.0)) == Speed(tick=3.0, row=0.0)
    assert Speed.between((1, 1.0), (5, 9.0)) == Speed(tick=0.0, row=2.0)


@given(widths, st.sampled_from(["converged", "exhausted"]))
def test_the_widest_wave_is_the_engines(breadth: int, stop: Stop) -> None:
    request = Request("a", Budget(breadth=breadth, stop=stop))
    widest = 0
    while begin_wave(request):
        widest = max(widest, len(request.wave))
    assert widest_wave(breadth, stop == "exhausted") == widest

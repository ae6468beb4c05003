from __future__ import annotations

from itertools import pairwise

import pytest

from service.pace import Pace


def events_of(per_second: float, seconds: float, step: float = 0.01) -> list[float]:
    """Moments at which a pace lets an event out, asked every `step`."""
    moment = 0.0
    pace = Pace(per_second, clock=lambda: moment)
    sent = []
    for tick in range(int(seconds / step)):
        moment = tick * step
        if pace.due():
            sent.append(moment)
    return sent


@pytest.mark.parametrize("per_second", [1.0, 5.0, 20.0])
def test_the_first_event_goes_out_at_once_and_the_rate_is_kept(per_second: float) -> None:
    sent = events_of(per_second, 10)
    assert sent[0] == 0.0
    gaps = [after - before for before, after in pairwise(sent)]
    assert min(gaps) >= 1 / per_second - 1e-9
    assert len(sent) == pytest.approx(10 * per_second, rel=0.12)


def test_an_hour_has_few_events() -> None:
    sent = events_of(20.0, 3600, step=0.05)
    assert 1000 < len(sent) < 2000
    assert sent[-1] > 3500

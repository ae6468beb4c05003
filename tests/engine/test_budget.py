from __future__ import annotations

import math
from typing import Any

import pytest

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.errors import BudgetError
from tests.engine.tiny import GRID, TASK


@pytest.mark.parametrize("field", ["depth", "breadth", "nfe"])
@pytest.mark.parametrize("value", [0, -1, True, 1.0, 64.5, "8", math.nan, math.inf, 10**9])
def test_counts_outside_their_limits(field: str, value: object) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(BudgetError, match=field) as caught:
        Budget(**values)
    assert caught.value.field == field
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("field", ["deadline_ms", "tolerance"])
@pytest.mark.parametrize("value", [0, -0.5, True, math.nan, math.inf, -math.inf, "1", 1e12])
def test_amounts_outside_their_limits(field: str, value: object) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(BudgetError) as caught:
        Budget(**values)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), "x" * 10**6, [0] * 10**6],
    ids=["integer", "negative", "text", "list"],
)
@pytest.mark.parametrize("field", ["depth", "nfe", "deadline_ms", "tolerance", "stop"])
def test_huge_values_are_named_in_few_words(field: str, value: object) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(BudgetError, match=field) as caught:
        Budget(**values)
    assert len(str(caught.value)) < 200


def test_none_is_no_depth() -> None:
    values: dict[str, Any] = {"depth": None}
    with pytest.raises(BudgetError, match="depth"):
        Budget(**values)


def test_unknown_stop() -> None:
    values: dict[str, Any] = {"stop": "soon"}
    with pytest.raises(BudgetError, match="converged, verified, exhausted"):
        Budget(**values)


def test_the_limits_themselves_are_allowed() -> None:
    Budget(depth=4096, breadth=1024, nfe=4096 * 1024, deadline_ms=3_600_000, tolerance=10)
    Budget(depth=1, breadth=1, nfe=1, deadline_ms=0.001, tolerance=1e-9, stop="verified")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("seed", True),
        ("seed", 1.5),
        ("noise", math.nan),
        ("noise", -0.1),
        ("noise", 11),
        ("noise", True),
        pytest.param("noise", 10**5000, id="huge"),
        ("priority", 1001),
        ("selection", "best"),
    ],
)
def test_bad_request_fields(field: str, value: object) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(BudgetError) as caught:
        SolveRequest(TASK, GRID, "tiny", **values)
    assert caught.value.field == field

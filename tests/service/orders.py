"""Orders, models and answers for tests without an engine."""

from __future__ import annotations

from typing import Any

from service.orders import Order, order_of
from service.schemas import BreadthCount, ModelAnswer, SolveAnswer, SolveBody, Timing

FOUR = "1...4...2..3...."


def order(**fields: Any) -> Order:
    return order_of(SolveBody.model_validate({"grid": FOUR, **fields}), 60_000.0)


def model(name: str = "m", digest: str = "d", sizes: tuple[str, ...] = ("4x4",)) -> ModelAnswer:
    return ModelAnswer(
        name=name,
        task="sudoku",
        sizes=list(sizes),
        parameters=1,
        digest=digest,
        tolerance=1e-3,
        description="",
        license="",
        results=[],
    )


def answer(
    one: Order, finish_reason: str = "converged", nfe: int = 5, lost: int = 0
) -> SolveAnswer:
    return SolveAnswer(
        id=one.request.id,
        task="sudoku",
        model=one.request.model,
        grid=[[1, 2, 3, 4]] * 4,
        text="1234" * 4,
        residual=0.5,
        converged=finish_reason == "converged",
        verified=False,
        finish_reason=finish_reason,
        iterations=5,
        nfe=nfe,
        layers=5,
        breadth=BreadthCount(started=1, converged=1, lost=lost),
        agreement=1.0,
        seed=one.request.seed,
        cached=False,
        timing_ms=Timing(queue=1.0, solve=2.0, total=3.0),
    )

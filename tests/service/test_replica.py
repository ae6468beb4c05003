"""The solver replica's class with a real engine, without Ray."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eqr_core.model.checkpoint import update_card
from service.metrics import exposition
from service.orders import order_of
from service.problems import Refusal
from service.replica import Solver
from service.schemas import SolveAnswer, SolveBody
from service.settings import Settings
from tests.checkpoints import save_random

FOUR = "1...4...2..3...."


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    folder = tmp_path_factory.mktemp("model")
    save_random(folder / "one", name="one")
    save_random(folder / "two", name="two", seed=1)
    small = save_random(folder / "small", name="small")
    update_card(folder / "small", replace(small, sizes=("9x9",)))
    models = tuple(str(folder / name) for name in ("one", "two", "small"))
    return Solver(Settings(models=models, cpus=1, slots=4, queue=4))


def run(solver: Solver, deadline_ms: float = 1e6, **body: Any) -> SolveAnswer | Refusal:
    order = order_of(SolveBody.model_validate({"grid": FOUR, **body}), deadline_ms)
    return asyncio.run(solver.solve(order))


def test_it_solves_and_reports_what_it_counted(solver: Solver) -> None:
    answer = run(solver, budget={"depth": 3, "breadth": 2}, model="two")
    assert isinstance(answer, SolveAnswer)
    assert (answer.model, answer.iterations, answer.nfe) == ("two", 3, 6)
    text = exposition([("a", solver._metrics.collect(solver._engine.stats))]).decode()
    assert 'eqr_solves_total{finish_reason="exhausted",model="two",replica="a"' in text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "nobody"}, "unknown_model"),
        ({"model": "small", "grid": "." * 36}, "unsuitable_model"),
    ],
)
def test_what_the_client_did_wrong_is_a_value(
    solver: Solver, body: dict[str, Any], code: str
) -> None:
    outcome = run(solver, **body)
    assert isinstance(outcome, Refusal)
    assert outcome.code == code


def test_a_deadline_that_is_over_is_told(solver: Solver) -> None:
    outcome = run(solver, deadline_ms=1e-6, budget={"depth": 4096})
    assert isinstance(outcome, Refusal)
    assert outcome.code == "deadline_exceeded"


def test_health_turns_red_when_the_stepping_thread_dies(tmp_path: Path) -> None:
    save_random(tmp_path / "one", name="one")
    solver = Solver(Settings(models=(str(tmp_path / "one"),), cpus=1))
    solver.check_health()

    def broken() -> None:
        raise MemoryError("no memory left")

    solver._engine.step = broken  # type: ignore[method-assign, assignment]
    outcome = run(solver)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "not_ready"
    with pytest.raises(RuntimeError, match="died"):
        solver.check_health()


def test_the_metrics_of_two_replicas_stand_side_by_side(solver: Solver) -> None:
    part = solver._metrics.collect(solver._engine.stats)
    lines = exposition([("a", part), ("b", part)]).decode().splitlines()
    assert lines.count("# TYPE eqr_slots gauge") == 1
    slots = [line for line in lines if line.startswith("eqr_slots{")]
    assert len(slots) == 2
    assert all(math.isclose(float(line.split()[-1]), float(slots[0].split()[-1])) for line in slots)

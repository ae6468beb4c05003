"""The solver replica's class with a real engine, without Ray."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eqr_core.errors import ModelError
from eqr_core.model.checkpoint import update_card
from service.metrics import IngressMetrics, exposition
from service.orders import order_of
from service.problems import Refusal
from service.replica import Solver, warm_engine
from service.schemas import SolveAnswer, SolveBody
from service.settings import Settings
from tests.checkpoints import save_random

FOUR = "1...4...2..3...."
LONG = {"depth": 4096, "breadth": 1024, "stop": "exhausted"}


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    folder = tmp_path_factory.mktemp("model")
    save_random(folder / "one", name="one")
    save_random(folder / "two", name="two", seed=1)
    small = save_random(folder / "small", name="small")
    update_card(folder / "small", replace(small, sizes=("9x9",)))
    models = tuple(str(folder / name) for name in ("one", "two", "small"))
    return Solver(Settings(models=models, cpus=1, slots=4, queue=4))


def counted(solver: Solver, name: str) -> float:
    """Sum over all labels of the samples `name`."""
    metrics = solver._metrics.collect(solver._engine.stats)
    return sum(one.value for metric in metrics for one in metric.samples if one.name == name)


def run(solver: Solver, deadline_ms: float = 1e6, **body: Any) -> SolveAnswer | Refusal:
    order = order_of(SolveBody.model_validate({"grid": FOUR, **body}), deadline_ms)
    return asyncio.run(solver.solve(order))


def test_the_warm_up_ran_at_every_size_and_counts_for_nobody(solver: Solver) -> None:
    models = solver._engine.models
    lanes = sum(len(card.sizes) for card in models.values())
    assert solver._engine.stats.slots == 4 * lanes
    assert solver._engine.stats.ticks == lanes
    for name in ("eqr_outer_steps_total", "eqr_trajectories_total", "eqr_tick_seconds_count"):
        assert counted(solver, name) == 0


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


def test_a_deadline_that_is_over_is_told_and_counted(solver: Solver) -> None:
    before = counted(solver, "eqr_solves_total")
    outcome = run(solver, deadline_ms=1e-6, budget={"depth": 4096})
    assert isinstance(outcome, Refusal)
    assert outcome.code == "deadline_exceeded"
    assert counted(solver, "eqr_solves_total") == before + 1


def test_the_deadline_runs_on_while_the_order_waits(solver: Solver) -> None:
    body = SolveBody.model_validate({"grid": FOUR, "budget": LONG})
    order = order_of(body, 3_600_000)
    waited = replace(order, end=time.time() + 0.5)
    answer = asyncio.run(solver.solve(waited))
    assert isinstance(answer, SolveAnswer)
    assert answer.finish_reason == "deadline"
    skewed = replace(order, end=order.end + 9e6)
    assert skewed.request_now("one").budget.deadline_ms == 3_600_000


def test_a_full_grid_is_counted_and_stays_out_of_the_histograms(solver: Solver) -> None:
    solves, sums = counted(solver, "eqr_solves_total"), counted(solver, "eqr_solve_nfe_count")
    answer = run(solver, grid="1234341221434321")
    assert isinstance(answer, SolveAnswer)
    assert (answer.verified, answer.nfe) == (True, 0)
    assert counted(solver, "eqr_solves_total") == solves + 1
    assert counted(solver, "eqr_solve_nfe_count") == sums


def test_the_process_ends_when_the_stepping_thread_dies(tmp_path: Path) -> None:
    save_random(tmp_path / "one", name="one")
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path / "one")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout) == (1, "healthy\n"), done.stderr
    assert "no memory left" in done.stderr


BROKEN = """
import asyncio, logging, sys
from service.orders import order_of
from service.replica import Solver
from service.schemas import SolveBody
from service.settings import Settings

def broken():
    raise MemoryError("no memory left")

logging.basicConfig()
solver = Solver(Settings(models=(sys.argv[1],), cpus=1))
solver.check_health()
print("healthy", flush=True)
solver._engine.step = broken
asyncio.run(solver.solve(order_of(SolveBody(grid="." * 16), 1e6)))
print("still there")
"""


def test_a_replica_whose_thread_has_stopped_is_not_healthy(tmp_path: Path) -> None:
    save_random(tmp_path / "one", name="one")
    solver = Solver(Settings(models=(str(tmp_path / "one"),), cpus=1))
    solver.check_health()
    solver._runner.stop()
    with pytest.raises(RuntimeError, match="died"):
        solver.check_health()


def test_an_engine_of_no_models_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("eqr_core.zoo.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ModelError, match="none is named"):
        warm_engine(())


def test_the_metrics_of_two_replicas_stand_side_by_side() -> None:
    parts = []
    for name, rejects in (("a", 1), ("b", 2)):
        metrics = IngressMetrics()
        for _ in range(rejects):
            metrics.reject("not_found")
        parts.append((name, metrics.collect()))
    lines = exposition(parts).decode().splitlines()
    assert lines.count("# TYPE eqr_requests_rejected_total counter") == 1
    values = {line for line in lines if line.startswith("eqr_requests_rejected_total{")}
    assert values == {
        'eqr_requests_rejected_total{code="not_found",replica="a"} 1.0',
        'eqr_requests_rejected_total{code="not_found",replica="b"} 2.0',
    }

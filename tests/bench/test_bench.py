from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eqr_core.bench.crowd import measure_arrivals
from eqr_core.bench.match import Fixed, match_fixed
from eqr_core.bench.roofline import count_work, paper_operator
from eqr_core.bench.static import StaticBatches
from eqr_core.bench.throughput import contenders
from eqr_core.bench.workload import Workload
from eqr_core.cli import app
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import write_puzzles
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine, SolveRequest
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    save_random(tmp_path / "m", tolerance=0.05)
    return Workload.of(str(tmp_path / "m"), generate_sudoku(Sudoku((2, 2)), 6, seed=1))


@pytest.fixture
def files(workload: Workload, tmp_path: Path) -> list[str]:
    write_puzzles(tmp_path / "p.csv.gz", list(workload.rows))
    return ["--model", str(workload.checkpoint), "--data", str(tmp_path / "p.csv.gz")]


def test_static_batches_answer_as_the_engine_does_under_the_same_fixed_budget(
    workload: Workload,
) -> None:
    grids = [puzzle.grid for puzzle in workload.puzzles]
    static = StaticBatches(workload.operator, "eager").solve(grids, range(len(grids)), 5, 3)
    engine = Engine([workload.checkpoint])
    budget = Budget(5, 3, stop="exhausted")
    answers = engine.solve(
        [
            SolveRequest(workload.task, grid, workload.card.name, budget, seed=seed)
            for seed, grid in enumerate(grids)
        ]
    )
    assert static == [answer.grid for answer in answers]


def test_timing_a_batch_makes_its_outer_steps(workload: Workload) -> None:
    run = StaticBatches(workload.operator, "eager").begin([p.grid for p in workload.puzzles])
    before = run.state[0].clone()
    run.go_on()
    assert (run.steps, run.rows) == (1, 6)
    assert run.clock.cpu > 0
    assert not before.equal(run.state[0])


def test_the_fixed_budget_is_the_smallest_that_is_as_accurate(workload: Workload) -> None:
    anything = match_fixed(workload, Budget(16, 4), accuracy=0.0, on_rows=lambda count: None)
    assert (anything.depth, anything.breadth, anything.reached) == (4, 1, True)
    never = match_fixed(workload, Budget(8, 2), accuracy=2.0, on_rows=lambda count: None)
    assert never.reached is False


def test_a_workload_has_one_size(workload: Workload) -> None:
    mixed = [*workload.rows, *generate_sudoku(Sudoku((2, 3)), 1, seed=1)]
    with pytest.raises(DataError, match="4x4 and 6x6"):
        Workload.of(str(workload.checkpoint), mixed)


def test_the_papers_operator_takes_what_its_layers_take() -> None:
    """42 layers of two SwiGLUs each: 18.7 GFLOP (paper, section 4)."""
    token, channel = 3 * 2 * 512 * 81 * 256, 3 * 2 * 81 * 512 * 1536
    assert count_work(paper_operator()).flops == 42 * (token + channel)


def test_the_command_prints_what_it_measured(files: list[str], workload: Workload) -> None:
    args = ["bench", "engine", *files, "--depth", "8", "--breadth", "2", "--parts", "company"]
    result = CliRunner().invoke(app, [*args, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["puzzles"], document["size"]) == (6, "4x4")
    assert result.stderr.splitlines() == ["company"]
    assert set(document["company"].values()) == {0}
    assert len(document["company"]) == 4
    assert "answers that differ" in CliRunner().invoke(app, args).stdout


@pytest.mark.parametrize("requests", [12, 3])
@pytest.mark.parametrize("slots", [1, 4])
def test_easy_puzzles_arrive_among_hard_ones(workload: Workload, slots: int, requests: int) -> None:
    alone, crowded = measure_arrivals(workload, slots, 12, requests, 3)
    assert (alone.count, crowded.count) == (3, 3)
    assert (crowded.hard, crowded.requests) == (12, requests)
    assert 0 < alone.median_ms <= alone.p99_ms


@pytest.mark.parametrize(
    ("args", "message"),
    [(["--fixed", "64"], "64x8"), (["--parts", "speed"], "'speed'"), (["--limit", "0"], "--limit")],
)
def test_the_command_refuses_in_one_line(files: list[str], args: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "engine", *files, *args])
    assert result.exit_code in (1, 2)
    assert message in result.stderr.splitlines()[-1]


def test_eager_and_compiled_batches_run_everywhere(workload: Workload) -> None:
    assert contenders(workload)[:2] == ("eager", "compiled")
    assert Fixed(64, 8).nfe == 512

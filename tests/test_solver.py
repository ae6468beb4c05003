from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eqr_core import Budget, BudgetError, DeadlineExceeded, GridError, ModelError, Solver
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from tests.engine import tiny

TEXT = "1... ..3. .4.. ...2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tiny.config()
    card = Card("mine", "sudoku", config, ("4x4",), tolerance=0.01)
    save_checkpoint(tmp_path / "mine", tiny.weights(config), card)
    return tmp_path / "mine"


def test_rows_and_text_are_the_same_grid(folder: Path) -> None:
    solver = Solver.load(folder)
    answer = solver.solve(TEXT)
    rows = solver.solve([list(row) for row in tiny.GRID], task="sudoku")
    assert answer.grid == rows.grid
    assert (answer.task, answer.model, answer.finish_reason) == ("sudoku", "mine", "converged")
    assert len(answer.text) == 16
    assert answer.residual <= 0.01
    assert answer.verified is tiny.TASK.verify(tiny.GRID, answer.grid)


def test_the_seed_decides_the_answer(folder: Path) -> None:
    solver = Solver.load(str(folder), slots=2)
    budget = Budget(depth=4, breadth=4)
    first, again, other = (solver.solve(TEXT, budget, seed=seed) for seed in (1, 1, 2))
    assert first.residual == again.residual != other.residual


def test_many_grids_get_the_answers_they_get_alone(folder: Path) -> None:
    solver = Solver.load(folder, slots=4)
    texts = [tiny.TASK.text(grid) for grid in tiny.puzzles(30)]
    budget = Budget(depth=16, breadth=4)
    together = solver.solve_many(texts, budget, seed=3, noise=0.01, selection="majority")
    alone = [solver.solve(t, budget, seed=3, noise=0.01, selection="majority") for t in texts]
    assert [a.trajectories for a in together] == [a.trajectories for a in alone]
    assert solver.solve_many([]) == []


def test_threads_may_share_a_solver(folder: Path) -> None:
    solver = Solver.load(folder, slots=4)
    texts = [tiny.TASK.text(grid) for grid in tiny.puzzles(24)]
    budget = Budget(depth=8, breadth=4)
    with ThreadPoolExecutor(6) as threads:
        shared = list(threads.map(lambda text: solver.solve(text, budget), texts))
    alone = Solver.load(folder).solve_many(texts, budget)
    assert [a.trajectories for a in shared] == [a.trajectories for a in alone]


def test_a_full_grid_comes_back(folder: Path) -> None:
    answer = Solver.load(folder).solve(tiny.FULL)
    assert (answer.grid, answer.nfe, answer.verified) == (tiny.FULL, 0, True)


def test_what_is_wrong_is_named(folder: Path) -> None:
    solver = Solver.load(folder)
    with pytest.raises(GridError, match="row 1"):
        solver.solve("11.. .... .... ....")
    with pytest.raises(ModelError, match="9x9"):
        solver.solve("." * 81)
    with pytest.raises(ModelError, match="maze-of-glass"):
        solver.solve(TEXT, task="maze-of-glass")
    with pytest.raises(BudgetError, match="seed"):
        solver.solve(TEXT, seed=-1)
    with pytest.raises(ModelError, match="no-such-model"):
        Solver.load("no-such-model")
    with pytest.raises(DeadlineExceeded, match="ms"):
        solver.solve(TEXT, Budget(deadline_ms=1e-6))

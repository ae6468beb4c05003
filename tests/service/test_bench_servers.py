"""Static batches behind LitServe, a real one; behind Ray Serve they get the same solver."""

from __future__ import annotations

from pathlib import Path

import pytest

from eqr_core.bench.static import StaticBatches
from eqr_core.bench.workload import Workload
from eqr_core.data.generate import generate_sudoku
from eqr_core.errors import EqrError
from eqr_core.tasks.sudoku import Sudoku
from service.bench.rivals import Item, Rival, lit_serve, measure
from tests.checkpoints import save_random


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    save_random(tmp_path / "m")
    return Workload.of(str(tmp_path / "m"), generate_sudoku(Sudoku((2, 2)), 6, seed=1))


def rival_and_items(workload: Workload) -> tuple[Rival, list[Item]]:
    texts = [puzzle.task.text(puzzle.grid) for puzzle in workload.puzzles]
    rival = Rival(str(workload.checkpoint), texts[0], "eager", 5, 2, 4, 1)
    return rival, [(text, seed) for seed, text in enumerate(texts)]


def expected(workload: Workload) -> list[str]:
    grids = [puzzle.grid for puzzle in workload.puzzles]
    answers = StaticBatches(workload.operator, "eager").solve(grids, range(len(grids)), 5, 2)
    return [workload.task.text(grid) for grid in answers]


def test_a_batch_that_is_not_full_gives_the_same_answers(workload: Workload) -> None:
    rival, items = rival_and_items(workload)
    solve = rival.solver()
    assert [*solve(items[:4]), *solve(items[4:])] == expected(workload)


def test_the_server_answers_as_the_batches_do_and_ends(workload: Workload) -> None:
    rival, items = rival_and_items(workload)
    with lit_serve(rival) as ask:
        seconds, answers = measure(ask, items, 6)
    assert answers == expected(workload)
    assert seconds > 0


def test_a_server_that_does_not_start_is_reported(workload: Workload) -> None:
    rival, _ = rival_and_items(workload)
    (workload.checkpoint / "model.safetensors").unlink()
    with pytest.raises(EqrError, match="LitServe ended"), lit_serve(rival):
        pass

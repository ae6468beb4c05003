"""The runner of a GPU: on a CPU without capture, and captured where there is a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from eqr_core.data.generate import generate_sudoku
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.graphs import GraphRunner
from eqr_core.engine.randomness import initial_state
from eqr_core.engine.runner import Row, Runner
from eqr_core.engine.slots import SlotPool
from eqr_core.errors import EqrError
from eqr_core.model.operator import Operator
from eqr_core.tasks import parse_grid
from eqr_core.tasks.sudoku import Sudoku
from tests.engine import tiny

SLOTS = 20
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def fill(pool: SlotPool, operator: Operator) -> None:
    tokens = torch.from_numpy(tiny.TASK.encode(tiny.GRID))[None].to(operator.device)
    for slot in range(SLOTS):
        start = initial_state(0, slot, operator.state_shape, operator.state_count)
        pool.write(slot, start, operator.embed(tokens)[0])


def filled(operator: Operator) -> tuple[SlotPool, GraphRunner]:
    pool = SlotPool(operator, SLOTS + 1)
    runner = GraphRunner(operator, pool)  # which tries its buckets on the pool
    fill(pool, operator)
    return pool, runner


def tiny_operator(device: str = "cpu") -> Operator:
    config = tiny.config(states="hierarchical")
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config))
    return operator.requires_grad_(False).to(device)


def rows_of(slots: Sequence[int], noise: float = 0.0) -> list[Row]:
    return [Row(slot, 9, slot, 1, noise) for slot in slots]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("slots", [[7], [18, 2, 3, 7, 11], [*range(SLOTS)]])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_it_gives_what_the_runner_of_a_cpu_gives(
    device: str, slots: list[int], noise: float
) -> None:
    operator = tiny_operator()
    plain = SlotPool(operator, SLOTS)
    fill(plain, operator)
    expected = Runner(operator, plain).run(rows_of(slots, noise))
    captured, runner = filled(tiny_operator(device))
    found = runner.run(rows_of(slots, noise))
    assert list(found) == list(expected)
    near = 1e-4 if device == "cpu" else 2e-2  # TF32 has ten bits
    for slot, (residual, tokens) in expected.items():
        assert found[slot][0] == pytest.approx(residual, rel=near)
        assert found[slot][1] == tokens
    for mine, theirs in zip(captured.state, plain.state, strict=True):
        torch.testing.assert_close(mine[slots].cpu(), theirs[slots], rtol=near, atol=near)


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_are_not_asked_for_stay_whatever_they_and_the_last_row_hold(device: str) -> None:
    pool, runner = filled(tiny_operator(device))
    for rows in pool.state:
        rows[[5, SLOTS]] = math.nan
    before = [rows.clone() for rows in pool.state]
    results = runner.run(rows_of([18, 2, 3]))
    assert all(math.isfinite(residual) for residual, _ in results.values())
    for rows, old in zip(pool.state, before, strict=True):
        for slot in range(SLOTS):
            assert torch.equal(rows[slot], old[slot]) is (slot not in (18, 2, 3, 5))


def test_a_bucket_that_rounds_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled(tiny_operator())[1].buckets == (1, 5, SLOTS)
    plain = GraphRunner._advance

    def other(self: GraphRunner, slots: torch.Tensor, noise: None = None) -> torch.Tensor:
        status = plain(self, slots, noise)
        if len(slots) == 5:
            self._pool.state[0][slots[0]] += 1e-6
        return status

    monkeypatch.setattr(GraphRunner, "_advance", other)
    assert filled(tiny_operator())[1].buckets == (1, SLOTS)


def test_an_engine_says_which_devices_there_are() -> None:
    with pytest.raises(EqrError, match="device is 'tpu'; it must be"):
        Engine(["sudoku"], device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(EqrError, match="no GPU"):
            Engine(["sudoku"], device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_engine_on_a_gpu_solves_alone_as_in_company() -> None:
    task = Sudoku((3, 3))
    rows = generate_sudoku(task, 8, seed=1, clues=(40, 45))
    puzzles = [parse_grid(row.question)[1] for row in rows]
    orders = [SolveRequest(task, grid, "sudoku", Budget(32, 2)) for grid in puzzles]
    together = Engine(["sudoku"], device="cuda", slots=16).solve(orders)
    alone = Engine(["sudoku"], device="cuda", slots=16)
    for order, answer in zip(orders, together, strict=True):
        assert answer.verified
        assert alone.solve([order])[0].grid == answer.grid

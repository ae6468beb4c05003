"""How many rows the runner computes together where torch computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eqr_core.bench.roofline import paper_operator
from eqr_core.engine import runner as module
from eqr_core.engine.runner import Row, Runner
from eqr_core.engine.slots import SlotPool
from eqr_core.model.operator import Operator, State
from tests.engine import tiny


def test_large_matrices_are_multiplied_for_several_rows() -> None:
    operator = paper_operator()
    assert Runner(operator, SlotPool(operator, 1)).group_sizes == (8, 4, 2, 1)


def test_a_size_that_rounds_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.config("token", "hierarchical")
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config))
    operator.requires_grad_(False)
    pool = SlotPool(operator, 7)
    for part in (*pool.state, pool.embedding):
        part.copy_(torch.randn(part.shape))
    asked, sizes = [], []
    outer_step = operator.outer_step

    def agrees(operator: Operator, size: int) -> bool:
        asked.append(size)
        return size == 2

    def counted(state: State, e: Tensor) -> State:
        sizes.append(len(e))
        return outer_step(state, e, None)

    monkeypatch.setattr(module, "_agrees", agrees)
    runner = Runner(operator, pool)
    monkeypatch.setattr(runner, "_outer_step", lambda state, e, noise: counted(state, e))
    for _ in range(2):
        runner.run([Row(slot, 0, slot, 1, 0.0) for slot in range(7)])
    assert sizes == 2 * [2, 2, 2, 1]
    assert asked == [4, 2], "each is tried once, when it is needed"

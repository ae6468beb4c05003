from __future__ import annotations

import logging

import pytest

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.memory import SHARE, fitting_slots, free_memory, slot_bytes
from eqr_core.engine.slots import SlotPool
from eqr_core.errors import EqrError
from eqr_core.model.operator import Operator
from tests.engine.tiny import GRID, TASK, config, engine


@pytest.fixture
def operator() -> Operator:
    return Operator(config(states="hierarchical"), TASK)


def test_bytes_are_those_of_the_pool(operator: Operator) -> None:
    pool = SlotPool(operator, 3)
    tensors = (*pool.state, pool.embedding)
    assert 3 * slot_bytes(operator) == sum(t.numel() * t.element_size() for t in tensors)


def test_slots_that_fit_stay(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    needed = 8 * slot_bytes(operator)
    assert fitting_slots(operator, 8, free=int(needed / SHARE) + 1) == 8
    assert fitting_slots(operator, 8) == 8
    assert not caplog.records


def test_too_many_are_lowered_with_one_line(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    free = 10 * slot_bytes(operator)
    with caplog.at_level(logging.WARNING):
        assert fitting_slots(operator, 64, free) == 8
    (record,) = caplog.records
    assert "64 slots of sudoku 4x4 would take" in record.message
    assert "there will be 8" in record.message


def test_what_others_were_promised_is_not_free(operator: Operator) -> None:
    free = 10 * slot_bytes(operator)
    assert fitting_slots(operator, 64, free, taken=5 * slot_bytes(operator)) == 4


def test_without_room_for_one_it_says_so(operator: Operator) -> None:
    with pytest.raises(EqrError, match="takes 6,144 bytes; only 100 are free"):
        fitting_slots(operator, 1, free=100)


def test_this_machine_has_some_memory_free() -> None:
    assert 1 << 20 < free_memory() < 1 << 50


def test_an_engine_with_more_slots_than_memory_starts_with_fewer_and_solves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wide = config(hidden=2048)
    operator = Operator(wide, TASK)
    asked = 4 * free_memory() // slot_bytes(operator)
    crowded = engine(wide, slots=asked)
    with caplog.at_level(logging.WARNING):
        (answer,) = crowded.solve([SolveRequest(TASK, GRID, "tiny", Budget(depth=2, breadth=3))])
    assert answer.nfe == 6
    assert 1 <= crowded.stats.slots < asked
    assert "there will be" in caplog.text

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from eqr_core.engine.randomness import initial_state
from eqr_core.engine.runner import Row, Runner, arithmetic
from eqr_core.engine.slots import SlotPool
from eqr_core.model.config import OperatorConfig
from eqr_core.model.native.build import library
from eqr_core.model.operator import Operator
from eqr_core.tasks.maze import Maze
from eqr_core.tasks.sudoku import Sudoku
from tests.engine import tiny

SLOTS = 20


def pool_and_runner(config: OperatorConfig) -> tuple[SlotPool, Runner]:
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config))
    operator.requires_grad_(False)
    pool = SlotPool(operator, SLOTS)
    e = operator.embed(torch.from_numpy(tiny.TASK.encode(tiny.GRID))[None])[0]
    for slot in range(SLOTS):
        pool.write(slot, initial_state(0, slot, operator.state_shape, operator.state_count), e)
    return pool, Runner(operator, pool)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_idle_rows_stay_as_they_are_whatever_they_hold(noise: float) -> None:
    pool, runner = pool_and_runner(tiny.config(states="hierarchical"))
    busy = [18, 2, 3, 7, 11]
    for rows in pool.state:
        rows[5] = float("nan")
    before = [rows.clone() for rows in pool.state]
    runner.run([Row(slot, 0, slot, 1, noise) for slot in busy])
    for rows, old in zip(pool.state, before, strict=True):
        for slot in range(SLOTS):
            same = torch.equal(rows[slot], old[slot])
            assert same is (slot not in busy and slot != 5)
            assert torch.isfinite(rows[slot]).all().item() is (slot != 5)


def test_rows_of_any_company_and_noise_give_the_same_bits_and_keep_their_order() -> None:
    config = tiny.config("token", "hierarchical")
    mixed = [Row(slot, 9, slot, 1, 0.1 * (slot % 2)) for slot in (19, 4, 1, 2, 6, 3, 0, 12, 9)]
    together = pool_and_runner(config)[1].run(mixed)
    for row in mixed:
        assert pool_and_runner(config)[1].run([row]) == {row.slot: together[row.slot]}
    assert len({residual for residual, _ in together.values()}) == len(mixed)


@pytest.mark.parametrize("task", [Maze(6, 7), Maze(9, 9), Maze(15, 15), Maze(30, 30)])
def test_rows_of_a_grid_give_the_same_bits_in_any_company(task: Maze) -> None:
    config = OperatorConfig("maze", "grid", 24, 2, 1, 2, "single", expansion=2.0, vocabulary=6)
    operator = Operator(config, task).requires_grad_(False)
    e = operator.embed(torch.from_numpy(task.encode(task.example))[None])[0]

    def run(slots: list[int]) -> dict[int, tuple[float, bytes]]:
        pool = SlotPool(operator, SLOTS)
        for slot in slots:
            state = initial_state(0, slot, operator.state_shape, operator.state_count)
            pool.write(slot, state, e)
        return Runner(operator, pool).run([Row(slot, 0, slot, 1, 0.0) for slot in slots])

    together = run(list(range(SLOTS)))
    for slot in (0, 1, 7, 16, 19):
        assert run([slot]) == {slot: together[slot]}


def test_at_the_moment_given_the_rest_is_left_out_and_stays_as_it_is() -> None:
    pool, runner = pool_and_runner(tiny.config(hidden=16))
    rows = [Row(slot, 0, slot, 1, 0.1 * (slot == 0)) for slot in range(SLOTS)]
    before = [part.clone() for part in pool.state]
    assert list(runner.run(rows, until=0.0)) == [0]
    assert set(runner.run(rows[1:] + rows[:1], until=0.0)) == set(range(1, 17))
    for part, old in zip(pool.state, before, strict=True):
        assert [torch.equal(a, b) for a, b in zip(part, old, strict=True)] == [
            slot > 16 for slot in range(SLOTS)
        ]


def test_large_states_are_computed_row_by_row() -> None:
    config = tiny.config(hidden=64, states="hierarchical")
    operator = Operator(config, Sudoku(box=(3, 3))).requires_grad_(False)
    assert Runner(operator, SlotPool(operator, 2)).group_sizes == (1,)


NATIVE = tiny.config(hidden=32)

needs_kernels = pytest.mark.skipif(
    library() is None, reason="no C++ compiler or no AVX-512 on this machine"
)


@needs_kernels
@pytest.mark.parametrize(("hidden", "each"), [(32, 4), (64, 4), (128, 2), (512, 1)])
def test_a_thread_steps_more_rows_a_call_where_they_are_small(hidden: int, each: int) -> None:
    operator = Operator(tiny.config(hidden=hidden), Sudoku(box=(3, 3)))
    sizes = Runner(operator, SlotPool(operator, 1)).group_sizes
    assert sizes == tuple(range(each * torch.get_num_threads(), 0, -1))


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_native_rows_give_the_same_bits_in_any_company(threads: int) -> None:
    rows = [Row(slot, 9, slot, 2, 0.1 * (slot % 2)) for slot in (19, 4, 1, 2, 6, 3, 0, 12, 9)]
    pool, runner = pool_and_runner(NATIVE)
    before = pool.state[0].clone()
    together = runner.run(rows)
    assert set(together) == {row.slot for row in rows}
    for row in rows:
        alone, runner = pool_and_runner(NATIVE)
        torch.set_num_threads(1)
        assert runner.run([row]) == {row.slot: together[row.slot]}
        assert torch.equal(alone.state[0][row.slot], pool.state[0][row.slot])
    for slot in range(SLOTS):
        assert torch.equal(pool.state[0][slot], before[slot]) is (slot not in together)


@needs_kernels
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_native_rows_are_the_operators(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(slot, 9, slot, 1, noise) for slot in range(SLOTS)]
    native_pool, native = pool_and_runner(NATIVE)
    monkeypatch.setattr("eqr_core.engine.runner.single_step", lambda operator: None)
    torch_pool, eager = pool_and_runner(NATIVE)
    for _ in range(3):
        ours, theirs = native.run(rows), eager.run(rows)
        for slot in range(SLOTS):
            assert ours[slot][0] == pytest.approx(theirs[slot][0], rel=1e-4)
            assert ours[slot][1] == theirs[slot][1]
    torch.testing.assert_close(native_pool.state[0], torch_pool.state[0], rtol=0, atol=1e-4)


@needs_kernels
def test_native_rows_wait_for_a_deadline_too() -> None:
    pool, runner = pool_and_runner(NATIVE)
    before = pool.state[0].clone()
    done = runner.run([Row(slot, 0, slot, 1, 0.0) for slot in range(SLOTS)], until=0.0)
    assert 0 < len(done) < SLOTS
    for slot in range(SLOTS):
        assert torch.equal(pool.state[0][slot], before[slot]) is (slot not in done)


def test_what_computes_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny.config("token", "hierarchical")
    assert (arithmetic(plain), arithmetic(plain, compiled=True)) == ("eager", "compiled")
    if library() is not None:
        assert arithmetic(NATIVE, compiled=True).startswith("native-")
        assert arithmetic(NATIVE) == arithmetic(NATIVE, compiled=True)
    monkeypatch.setattr("eqr_core.model.native.single.library", lambda: None)
    assert (arithmetic(NATIVE), arithmetic(NATIVE, compiled=True)) == ("eager", "compiled")


def test_nothing_runs_without_rows() -> None:
    assert pool_and_runner(tiny.config())[1].run([]) == {}


# torch's compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_step_is_the_same_function() -> None:
    config = tiny.config()
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config))
    operator.requires_grad_(False)
    e = operator.embed(torch.from_numpy(tiny.TASK.encode(tiny.GRID))[None])[0]
    results = []
    for compiled in (False, True):
        pool = SlotPool(operator, 4)
        for slot in range(4):
            pool.write(slot, initial_state(0, slot, operator.state_shape, operator.state_count), e)
        runner = Runner(operator, pool, compiled=compiled)
        results.append(runner.run([Row(slot, 0, slot, 1, 0.0) for slot in range(4)]))
    assert [list(result) for result in results] == [list(range(4))] * 2
    for (eager, answer), (fast, same) in zip(*(r.values() for r in results), strict=True):
        assert fast == pytest.approx(eager, rel=1e-3)
        assert answer == same

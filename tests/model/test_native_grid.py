"""The native kernels of `grid` against the operator, on the real compiler and processor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from eqr_core.model import mixers
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import truncated_normal
from eqr_core.model.native import SingleStep, native_step, single_step, supports
from eqr_core.model.operator import Operator, residual
from eqr_core.tasks import task_at
from tests.model.test_native import assert_close, gradients, needs_kernels, rolled
from tests.model.test_native_single import WithoutTiles, exact_norm

pytestmark = needs_kernels

CONFIG = OperatorConfig(
    task="maze",
    mixer="grid",
    hidden=32,
    expansion=2.0,
    blocks=2,
    cycles=1,
    updates=3,
    states="single",
    vocabulary=6,
)
SIZES = [(3, 5), (5, 64), (9, 9), (16, 10)]
"""Fewer places than are computed together, rows longer than that, and neither."""
ROWS = 4


def maze_operator(size: tuple[int, int], changes: dict[str, object] | None = None) -> Operator:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **(changes or {}))  # type: ignore[arg-type]
    return Operator(config, task_at("maze", *size))


def problem(operator: Operator) -> tuple[Tensor, Tensor, Tensor]:
    """State, tokens and noise, float32."""
    generator = torch.Generator().manual_seed(7)
    shape = (ROWS, *operator.state_shape)
    z = truncated_normal(torch.rand(shape, generator=generator))
    tokens = torch.randint(1, 6, (ROWS, operator.task.tokens), generator=generator)
    return z, tokens, 0.05 * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "changes", [{}, {"hidden": 64, "blocks": 1}, {"blocks": 3, "updates": 1, "damping": 0.25}]
)
def test_forward_and_gradients_are_the_operators(
    size: tuple[int, int], changes: dict[str, object]
) -> None:
    operator = maze_operator(size, changes)
    z, tokens, draws = problem(operator)
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    start = z.bfloat16().requires_grad_()
    ours = gradients(operator, step.train((start,), tokens, draws.bfloat16())[0], start)
    wide = z.bfloat16().float().requires_grad_()
    noise = rolled(draws.bfloat16().float())
    end = operator.outer_step((wide,), operator.embed(tokens), noise)[0]
    assert_close(ours, gradients(operator, end, wide), cosine=0.9998, norm=0.01)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_do_not_see_each_other_and_runs_repeat(threads: int) -> None:
    operator = maze_operator((9, 7))
    z, tokens, draws = problem(operator)
    z, draws = z.bfloat16(), draws.bfloat16()
    e = operator.embed(tokens).detach().bfloat16()
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        once, again = (gradients(operator, step.train((z,), tokens, draws)[0]) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, once, again))
    for row in range(ROWS):
        alone = step((z[row : row + 1],), e[row : row + 1], draws, first=row)[0]
        assert torch.equal(alone, once[0][row : row + 1])


def test_tiles_and_vectors_agree() -> None:
    operator = maze_operator((6, 11))
    z, tokens, draws = problem(operator)
    tiled, plain = (native_step(operator, torch.bfloat16) for _ in range(2))
    assert tiled is not None
    assert plain is not None
    plain._kernels._layout.shape.amx = 0
    results = []
    for step in (tiled, plain):
        start = z.bfloat16().requires_grad_()
        end = step.train((start,), tokens, draws.bfloat16())[0]
        results.append(gradients(operator, end, start))
    assert_close(results[0], results[1], cosine=0.9999, norm=0.002)


@pytest.fixture(params=["tiles", "vectors"])
def factors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "vectors":
        library = WithoutTiles()
        monkeypatch.setattr("eqr_core.model.native.single.library", lambda: library)


def single(operator: Operator) -> SingleStep:
    step = single_step(operator.requires_grad_(False))
    assert step is not None
    return step


@pytest.mark.usefixtures("factors")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "changes", [{}, {"hidden": 64, "blocks": 1, "cycles": 2}, {"blocks": 3, "damping": 0.25}]
)
def test_single_is_as_near_to_the_exact_result_as_torch(
    size: tuple[int, int], changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = maze_operator(size, changes)
    step = single(operator)
    z, tokens, _ = problem(operator)
    e = operator.embed(tokens).contiguous()
    noise = 0.1 * torch.randn(ROWS, step.updates, *operator.state_shape)
    pool = z.clone()
    changed, answer = step(pool, e, range(ROWS), noise)
    (eager,) = operator.outer_step((z,), e, lambda i: noise[:, i])
    torch.testing.assert_close(changed, residual((eager,), (z,)), rtol=1e-5, atol=0)
    assert torch.equal(answer, operator.predict(operator.read((eager,))[0]))
    monkeypatch.setattr(mixers, "rms_norm", exact_norm)
    (exact,) = operator.double().outer_step(
        (z.double(),), e.double(), lambda i: noise[:, i].double()
    )
    error, theirs = ((x - exact).norm() / exact.norm() for x in (pool, eager))
    assert error < 2 * theirs
    assert error < 5e-6


@pytest.mark.usefixtures("factors")
def test_a_row_that_is_no_number_stays_so_and_alone() -> None:
    operator = maze_operator((8, 9))
    step = single(operator)
    z, tokens, _ = problem(operator)
    e = operator.embed(tokens).contiguous()
    broken, sound = z.clone(), z.clone()
    broken[1, 0, 0, 0] = float("nan")
    changed, _ = step(broken, e, range(ROWS))
    step(sound, e, range(ROWS))
    assert changed.isnan().tolist() == [False, True, False, False]
    assert torch.equal(broken[[0, 2, 3]], sound[[0, 2, 3]])


@pytest.mark.parametrize("changes", [{"hidden": 48}, {"expansion": 1.5}])
def test_what_the_kernels_do_not_compute_is_left_to_the_operator(
    changes: dict[str, object],
) -> None:
    operator = maze_operator((5, 5), changes)
    assert not supports(operator.config, torch.bfloat16)
    assert native_step(operator, torch.bfloat16) is None
    assert single_step(operator) is None

"""The native float32 outer step against the operator, on the real compiler and processor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model import mixers
from eqr_core.model.layers import NORM_EPS, truncated_normal
from eqr_core.model.native import build, single_arithmetic, single_step
from eqr_core.model.operator import Operator, residual
from eqr_core.tasks import task_at
from tests.model.test_native import CONFIG, needs_kernels

pytestmark = needs_kernels
ROWS = 3


class WithoutTiles:
    """The library as it is on a processor without tiles."""

    def eqr_tiles(self) -> int:
        return 0

    def __getattr__(self, name: str) -> object:
        return getattr(build.library(), name)


@pytest.fixture(params=["native-bf16x3", "native-float32"], autouse=True)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native-float32":
        library = WithoutTiles()
        monkeypatch.setattr("eqr_core.model.native.single.library", lambda: library)
    if single_arithmetic(CONFIG) != request.param:
        pytest.skip("no tiles on this machine")
    return str(request.param)


def problem(operator: Operator) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    n = operator.task.rows
    z = truncated_normal(torch.rand(ROWS, *operator.state_shape, generator=generator))
    tokens = torch.randint(1, n + 2, (ROWS, n * n), generator=generator)
    return z, operator.embed(tokens).detach()


def exact_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)


@pytest.mark.parametrize("size", [4, 6, 9])
@pytest.mark.parametrize("changes", [{}, {"hidden": 64, "updates": 8}, {"cycles": 2, "updates": 2}])
def test_as_near_to_the_exact_result_as_torch(
    size: int, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    operator = Operator(config, task_at("sudoku", size, size))
    operator.requires_grad_(False)
    z, e = problem(operator)
    updates = operator.config.cycles * operator.config.updates
    noise = 0.1 * torch.randn(ROWS, updates, *operator.state_shape)
    step = single_step(operator)
    assert step is not None
    pool = z.clone()
    changed, tokens = step(pool, e, range(ROWS), noise)
    (eager,) = operator.outer_step((z,), e, lambda i: noise[:, i])
    torch.testing.assert_close(changed, residual((eager,), (z,)), rtol=1e-5, atol=0)
    assert torch.equal(tokens, operator.predict(operator.read((eager,))[0]))
    monkeypatch.setattr(mixers, "rms_norm", exact_norm)
    (exact,) = operator.double().outer_step(
        (z.double(),), e.double(), lambda i: noise[:, i].double()
    )
    error, theirs = ((x - exact).norm() / exact.norm() for x in (pool, eager))
    assert error < 2 * theirs
    assert error < 5e-6


def test_large_sums_saturate() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4)).requires_grad_(False)
    operator.load_state_dict({k: 300 * v for k, v in operator.state_dict().items()})
    z, e = problem(operator)
    step = single_step(operator)
    assert step is not None
    pool = z.clone()
    step(pool, e, range(ROWS))
    torch.testing.assert_close(pool, operator.outer_step((z,), e)[0], rtol=0, atol=1e-2)


def test_a_row_that_is_no_number_stays_so_and_alone() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 6, 6)).requires_grad_(False)
    z, e = problem(operator)
    step = single_step(operator)
    assert step is not None
    broken, sound = z.clone(), z.clone()
    broken[1, 0, 0, 0, 0, 0, 0] = float("nan")
    changed, _ = step(broken, e, range(ROWS))
    step(sound, e, range(ROWS))
    assert changed.isnan().tolist() == [False, True, False]
    assert torch.equal(broken[::2], sound[::2])


def test_only_the_rows_named_are_stepped_whatever_their_order() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4)).requires_grad_(False)
    z, e = problem(operator)
    step = single_step(operator)
    assert step is not None
    one, other, both = z.clone(), z.clone(), z.clone()
    first, _ = step(one, e, [2])
    second, _ = step(other, e, [0])
    changed, _ = step(both, e, [2, 0])
    assert torch.equal(changed, torch.cat([first, second]))
    assert torch.equal(both, torch.stack([other[0], z[1], one[2]]))
    assert step(both, e, [])[0].shape == (0,)


def test_later_changes_of_the_weights_are_not_seen() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4)).requires_grad_(False)
    z, e = problem(operator)
    step = single_step(operator)
    assert step is not None
    before, after = z.clone(), z.clone()
    step(before, e, range(ROWS))
    for weight in operator.parameters():
        weight.zero_()
    step(after, e, range(ROWS))
    assert torch.equal(before, after)


def test_what_does_not_fit_is_refused() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4)).requires_grad_(False)
    z, e = problem(operator)
    step = single_step(operator)
    assert step is not None
    noise = torch.zeros(1, CONFIG.updates, *operator.state_shape)
    for state, embedding, rows, draws in (
        (z, e, [3], None),
        (z, e, [-1], None),
        (z, e, [1, 1], None),
        (z.double(), e, [0], None),
        (z[..., :16], e, [0], None),
        (z.transpose(1, 2), e, [0], None),
        (z, e[:2], [0], None),
        (z, e, [0, 1], noise),
    ):
        with pytest.raises(ModelError):
            step(state, embedding, rows, draws)


@pytest.mark.parametrize("changes", [{"hidden": 48}, {"blocks": 2}, {"states": "hierarchical"}])
def test_what_the_kernels_do_not_compute_is_left_to_the_operator(
    changes: dict[str, object],
) -> None:
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert single_arithmetic(config) is None
    assert single_step(Operator(config, task_at("sudoku", 4, 4))) is None

"""The native kernels against the operator they stand for, on the real compiler and processor."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model import native
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import truncated_normal
from eqr_core.model.native import build, native_step, supports
from eqr_core.model.operator import Noise, Operator, State
from eqr_core.tasks import task_at

CONFIG = OperatorConfig(
    task="sudoku",
    mixer="units",
    hidden=32,
    blocks=1,
    cycles=1,
    updates=3,
    states="single",
    expansion=2.0,
    constraint_kinds=3,
)

needs_kernels = pytest.mark.skipif(
    build.library() is None, reason="no C++ compiler or no AVX-512 on this machine"
)


def problem(operator: Operator, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """State, tokens and noise of so many rows; the first and the last in bfloat16."""
    generator = torch.Generator().manual_seed(7)
    n = operator.task.rows
    shape = (rows, *operator.state_shape)
    z = truncated_normal(torch.rand(shape, generator=generator)).bfloat16()
    tokens = torch.randint(1, n + 2, (rows, n * n), generator=generator)
    draws = 0.05 * torch.randn(shape, generator=generator)
    return z, tokens, draws.bfloat16()


def rolled(draws: Tensor, first: int = 0) -> Noise:
    return lambda i: draws.roll(i - first, 0)


class Rounded(torch.autograd.Function):
    """Round to bfloat16 forwards, pass the gradient unchanged."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return grad


def rounded_step(operator: Operator, z: Tensor, e: Tensor, noise: Noise) -> Tensor:
    """One cycle in float32, but for the state and the blocks' inputs between updates."""
    config = operator.config
    for i in range(config.updates):
        u = Rounded.apply(z + e)  # type: ignore[no-untyped-call]
        u = operator.blocks[0](u, operator.task.layout)
        z = config.damping * z + (1 - config.damping) * u + noise(i)
        z = Rounded.apply(z)  # type: ignore[no-untyped-call]
    return z


def gradients(operator: Operator, end: Tensor, *inputs: Tensor) -> list[Tensor]:
    weight = torch.linspace(-1, 1, end.numel()).view(end.shape).to(end.dtype)
    parameters = [part for name, part in operator.named_parameters() if "head" not in name]
    grads = torch.autograd.grad((end * weight).float().sum(), [*inputs, *parameters])
    return [end.detach(), *grads]


def assert_close(one: list[Tensor], other: list[Tensor], cosine: float, norm: float) -> None:
    for a, b in zip(one, other, strict=True):
        a, b = a.double().flatten(), b.double().flatten()
        assert torch.cosine_similarity(a, b, dim=0) > cosine
        assert abs(a.norm() / b.norm() - 1) < norm


@needs_kernels
@pytest.mark.parametrize("size", [4, 6, 9])
@pytest.mark.parametrize("hidden", [32, 64])
# Over several updates a rounding can make another candidate the greatest of its group.
@pytest.mark.parametrize(("updates", "cosine", "norm"), [(1, 0.9999, 0.002), (3, 0.98, 0.05)])
def test_forward_and_gradients_are_the_operators(
    size: int, hidden: int, updates: int, cosine: float, norm: float
) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, hidden=hidden, updates=updates)
    operator = Operator(config, task_at("sudoku", size, size))
    z, tokens, draws = problem(operator, 5)
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    start = z.clone().requires_grad_()
    ours = gradients(operator, step.train((start,), tokens, draws)[0], start)
    wide, e = z.float().requires_grad_(), operator.embed(tokens)
    end = rounded_step(operator, wide, Rounded.apply(e), rolled(draws.float()))  # type: ignore[no-untyped-call]
    theirs = gradients(operator, end, wide)
    assert_close(ours, theirs, cosine, norm)


@needs_kernels
def test_no_farther_from_float32_than_the_operator_in_bfloat16() -> None:
    torch.manual_seed(0)
    operator = Operator(CONFIG, task_at("sudoku", 9, 9))
    z, tokens, draws = problem(operator, 6)
    e = operator.embed(tokens).detach().bfloat16()
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    (ours,) = step((z,), e, draws)
    (theirs,) = operator.outer_step((z,), e, rolled(draws))
    (exact,) = operator.outer_step((z.float(),), e.float(), rolled(draws.float()))
    assert (ours - exact).norm() < (theirs - exact).norm()


@needs_kernels
def test_several_cycles_differentiate_the_last() -> None:
    torch.manual_seed(0)
    operator = Operator(dataclasses.replace(CONFIG, cycles=3), task_at("sudoku", 4, 4))
    z, tokens, draws = problem(operator, 4)
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    ours = gradients(operator, step.train((z,), tokens, draws)[0])
    e = operator.embed(tokens)
    theirs = gradients(operator, operator.outer_step((z.float(),), e, rolled(draws.float()))[0])
    assert_close(ours, theirs, cosine=0.99, norm=0.05)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_do_not_see_each_other_and_runs_repeat(threads: int) -> None:
    torch.manual_seed(0)
    operator = Operator(CONFIG, task_at("sudoku", 9, 9))
    z, tokens, draws = problem(operator, 7)
    e = operator.embed(tokens).detach().bfloat16()
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        once, again = (gradients(operator, step.train((z,), tokens, draws)[0]) for _ in range(2))
        (quiet,) = step((z,), e)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, once, again))
    for row in range(7):
        assert torch.equal(step((z[row : row + 1],), e[row : row + 1])[0], quiet[row : row + 1])
        # Alone, the row takes the same draws when they start where it stood.
        alone = step((z[row : row + 1],), e[row : row + 1], draws, first=row)[0]
        assert torch.equal(alone, once[0][row : row + 1])


@needs_kernels
def test_tiles_and_vectors_agree() -> None:
    torch.manual_seed(0)
    operator = Operator(CONFIG, task_at("sudoku", 6, 6))
    z, tokens, draws = problem(operator, 3)
    tiled, plain = (native_step(operator, torch.bfloat16) for _ in range(2))
    assert tiled is not None
    assert plain is not None
    plain._kernels._layout.shape.amx = 0
    results = []
    for step in (tiled, plain):
        start = z.clone().requires_grad_()
        results.append(gradients(operator, step.train((start,), tokens, draws)[0], start))
    assert_close(results[0], results[1], cosine=0.9999, norm=0.002)


@needs_kernels
def test_a_graph_is_gone_through_once() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4))
    z, tokens, _ = problem(operator, 2)
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    (end,) = step.train((z,), tokens)
    end.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        end.sum().backward()


@needs_kernels
def test_what_does_not_fit_is_refused() -> None:
    operator = Operator(CONFIG, task_at("sudoku", 4, 4))
    z, tokens, draws = problem(operator, 2)
    e = operator.embed(tokens).detach().bfloat16()
    step = native_step(operator, torch.bfloat16)
    assert step is not None
    wrong: list[tuple[State, Tensor, Tensor | None]] = [
        ((z.float(),), e, None),
        ((z[..., :16],), e, None),
        ((z,), e[:1], None),
        ((z,), e, draws[:0]),
        ((z,), e, draws.float()),
    ]
    for case in wrong:
        with pytest.raises(ModelError):
            step(*case)
    with pytest.raises(ModelError):
        step.train((z,), tokens[:, 1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 48},
        {"expansion": 1.5},
        {"blocks": 2},
        {"states": "hierarchical"},
        {"gradient": "update"},
        {"mixer": "token", "tokens": 81, "vocabulary": 11},
    ],
)
def test_what_the_kernels_do_not_compute_is_left_to_the_operator(
    changes: dict[str, object],
) -> None:
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert not supports(config, torch.bfloat16)
    assert native_step(Operator(config, task_at("sudoku", 9, 9)), torch.bfloat16) is None


def test_only_bfloat16() -> None:
    assert supports(CONFIG, torch.bfloat16)
    assert not supports(CONFIG, torch.float32)


def test_without_a_compiler_there_is_one_line_and_no_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "_library", build._Library())
    monkeypatch.setenv("CXX", "no-such-compiler")
    operator = Operator(CONFIG, task_at("sudoku", 4, 4))
    with caplog.at_level(logging.WARNING):
        assert native.native_step(operator, torch.bfloat16) is None
        assert native.native_step(operator, torch.bfloat16) is None
    assert len([one for one in caplog.records if one.name == build.__name__]) == 1


@needs_kernels
def test_processes_that_build_at_once_share_one_library(tmp_path: Path) -> None:
    code = "from eqr_core.model.native.build import library; assert library()"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    assert [process.wait() for process in builds] == [0, 0]
    assert len(list((tmp_path / "eqr").iterdir())) == 1


@needs_kernels
def test_without_a_cache_the_build_is_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "file"
    cache.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(build, "_library", build._Library())
    assert build.library() is not None
    assert [path.suffix for path in tmp_path.glob("eqr-*/*")] == [".so"]


@needs_kernels
def test_a_broken_build_is_reported_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such header >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_library", build._Library())
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "no such header" in caplog.text
    assert not list((tmp_path / "cache" / "eqr").iterdir())


@needs_kernels
def test_where_there_is_no_home_the_build_is_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(build, "_library", build._Library())
    assert build.library() is not None
    assert [path.suffix for path in tmp_path.glob("eqr-*/*")] == [".so"]


WITHOUT_PERMISSION = """
import torch
from eqr_core.model.native import build, single_step
from eqr_core.model.native import single
from eqr_core.model.operator import Operator
from eqr_core.tasks import task_at
from tests.model.test_native import CONFIG

class Refused:
    def eqr_tiles(self):
        return 0

    def __getattr__(self, name):
        return getattr(build.library(), name)

single.library = Refused
torch.set_num_threads(2)
operator = Operator(CONFIG, task_at("sudoku", 4, 4)).requires_grad_(False)
step = single_step(operator)
state = torch.randn(4, *operator.state_shape)
residual, _ = step(state, torch.randn_like(state), range(4))
assert residual.isfinite().all()
"""


@needs_kernels
def test_a_process_that_may_not_use_tiles_touches_none() -> None:
    """It would be killed: the permission is never asked for in this one."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PERMISSION],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_kernels
def test_another_thread_may_take_the_last_idle_room() -> None:
    class Raced(list[Tensor]):
        """Seen full, found empty."""

        def __bool__(self) -> bool:
            return True

    operator = Operator(CONFIG, task_at("sudoku", 4, 4))
    step = native.native_step(operator, torch.bfloat16)
    assert step is not None
    step._kernels._idle = Raced()
    z, tokens, draws = problem(operator, 2)
    (end,) = step.train((z.requires_grad_(),), tokens, draws)
    end.float().sum().backward()
    assert z.grad is not None

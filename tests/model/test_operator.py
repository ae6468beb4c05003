from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import truncated_normal
from eqr_core.model.operator import Operator, State, residual
from eqr_core.tasks.base import Task
from eqr_core.tasks.maze import Maze
from eqr_core.tasks.sudoku import BOXES, Sudoku
from eqr_core.training.recipe import load_recipe

UNITS = OperatorConfig("sudoku", "units", 8, 2, 2, 3, constraint_kinds=3, expansion=2.0)
TOKEN = OperatorConfig("sudoku", "token", 8, 1, 2, 2, tokens=16, vocabulary=6)
ATTENTION = OperatorConfig("sudoku", "attention", 16, 1, 2, 2, heads=2, vocabulary=11)
GRID = OperatorConfig("sudoku", "grid", 8, 2, 2, 2, expansion=2.0, vocabulary=11)
HRM = replace(
    ATTENTION, updates=3, stacks="separate", gradient="update", initial="fixed", damping=0.0
)


def feed_forward(config: OperatorConfig) -> OperatorConfig:
    """Three distinct layers of the mixer of `config`."""
    plain: dict[str, Any] = {"cycles": 1, "updates": 1, "damping": 0.0, "noise": 0.0}
    return replace(config, states="none", initial="fixed", blocks=3, **plain)


def made(config: OperatorConfig, task: Task) -> Operator:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        operator = Operator(config, task)
        torch.nn.init.normal_(operator.q_head.weight)
        return operator


def start(operator: Operator, batch: int, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *operator.state_shape)
    return tuple(torch.randn(shape, generator=generator) for _ in range(operator.state_count))


def puzzle(n: int, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(2, n + 2, (batch, n * n), generator=generator)
    blank = torch.rand(batch, n * n, generator=generator) < 0.6
    return torch.where(blank, 1, digits)


Symmetry = Literal["digits", "rows in a band", "bands", "stacks", "columns in a stack", "transpose"]


def moved(x: Tensor, symmetry: str, box: tuple[int, int]) -> Tensor:
    """`x` [batch, bands, rows, stacks, columns, ...] under one symmetry of Sudoku."""
    height, width = box
    bands, stacks = width, height
    match symmetry:
        case "bands":
            return x[:, torch.arange(bands).roll(1)]
        case "rows in a band":
            # another order in each band
            order = [torch.arange(height).roll(b + 1) for b in range(bands)]
            return torch.stack([x[:, b, order[b]] for b in range(bands)], dim=1)
        case "stacks":
            return x[:, :, :, torch.arange(stacks).roll(1)]
        case "columns in a stack":
            order = [torch.arange(width).roll(s + 1) for s in range(stacks)]
            return torch.stack([x[:, :, :, s, order[s]] for s in range(stacks)], dim=3)
        case "transpose":
            return x.transpose(1, 3).transpose(2, 4)
    return x


@pytest.mark.parametrize("states", ["single", "hierarchical"])
@pytest.mark.parametrize(
    "symmetry",
    ["digits", "rows in a band", "bands", "stacks", "columns in a stack", "transpose"],
)
@pytest.mark.parametrize("n", [4, 6, 9])
def test_units_commute_with_the_symmetries_of_sudoku(
    n: int, symmetry: str, states: Literal["single", "hierarchical"]
) -> None:
    box = BOXES[n]
    if symmetry == "transpose" and box[0] != box[1]:
        box = (3, 3)
        n = 9
    operator = made(replace(UNITS, states=states), Sudoku(box))
    grid_shape = (2, *operator.state_shape[:-2])
    relabel = torch.randperm(n, generator=torch.Generator().manual_seed(1))

    def on_tokens(tokens: Tensor) -> Tensor:
        if symmetry == "digits":
            return torch.cat([torch.tensor([0, 1]), relabel + 2])[tokens]
        return moved(tokens.view(grid_shape), symmetry, box).reshape(2, n * n)

    def on_candidates(x: Tensor) -> Tensor:
        """`x` [batch, bands, rows, stacks, columns, digits, ...]."""
        if symmetry == "digits":
            return x[:, :, :, :, :, relabel.argsort()]
        return moved(x, symmetry, box)

    tokens, state = puzzle(n, 2), start(operator, 2)
    with torch.no_grad():
        plain, there = state, tuple(on_candidates(z) for z in state)
        for _ in range(2):
            plain = operator.outer_step(plain, operator.embed(tokens))
            there = operator.outer_step(there, operator.embed(on_tokens(tokens)))
        for a, b in zip(plain, there, strict=True):
            torch.testing.assert_close(on_candidates(a), b, rtol=1e-3, atol=1e-4)
            assert not torch.allclose(a, b, rtol=1e-2, atol=1e-2)
        logits, q = operator.read(plain)
        moved_logits, moved_q = operator.read(there)
    shaped = logits.view(*grid_shape, n)
    torch.testing.assert_close(
        on_candidates(shaped).reshape(2, n * n, n), moved_logits, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(q, moved_q, rtol=1e-3, atol=1e-4)


def test_a_change_that_is_no_symmetry_does_not_commute() -> None:
    operator = made(UNITS, Sudoku((2, 2)))
    tokens, state = puzzle(4, 1), start(operator, 1)

    def swap(x: Tensor) -> Tensor:
        """Rows 1 and 2, which are in different bands."""
        rows = x.flatten(1, 2)[:, [0, 2, 1, 3]]
        return rows.unflatten(1, (2, 2))  # type: ignore[no-any-return]

    with torch.no_grad():
        plain = operator.outer_step(state, operator.embed(tokens))
        other = swap(tokens.view(1, 2, 2, 2, 2)).reshape(1, 16)
        there = operator.outer_step(tuple(swap(z) for z in state), operator.embed(other))
    assert not torch.allclose(swap(plain[0]), there[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("n", [4, 6, 9, 16])
def test_units_run_at_every_size_with_the_same_weights(n: int) -> None:
    source = made(UNITS, Sudoku((3, 3)))
    operator = source.for_task(Sudoku(BOXES[n]))
    assert all(a is b for a, b in zip(source.parameters(), operator.parameters(), strict=True))
    assert source.task.size == "9x9"
    state, tokens = start(operator, 2), puzzle(n, 2)
    e = operator.embed(tokens)
    assert e.shape == (2, *operator.state_shape)
    new = operator.outer_step(state, e)
    assert [z.shape for z in new] == [z.shape for z in state]
    logits, q = operator.read(new)
    assert logits.shape == (2, n * n, n)
    assert q.shape == (2, 1)
    answer = operator.predict(logits)
    assert answer.shape == (2, n * n)
    assert answer.dtype == torch.uint8
    assert int(answer.min()) >= 2
    assert int(answer.max()) <= n + 1
    assert all(torch.isfinite(z).all() for z in new)


@pytest.mark.parametrize(("config", "n"), [(TOKEN, 4), (ATTENTION, 9), (ATTENTION, 4)])
def test_shapes_of_the_other_mixers(config: OperatorConfig, n: int) -> None:
    operator = made(config, Sudoku(BOXES[n]))
    state = start(operator, 3)
    assert state[0].shape == (3, n * n, config.hidden)
    new = operator.outer_step(state, operator.embed(puzzle(n, 3)))
    logits, q = operator.read(new)
    assert logits.shape == (3, n * n, config.vocabulary)
    assert q.shape == (3, 1)


def test_grid_is_a_pair_of_convolutions_over_neighbours_at_any_size() -> None:
    config = OperatorConfig("maze", "grid", 8, 1, 1, 1, "single", expansion=2.0, vocabulary=6)
    operator = made(config, Maze(3, 5))
    (x,) = start(operator, 2)
    assert x.shape == (2, 3, 5, 8)
    block = operator.blocks[0]
    near, out = block.get_parameter("near.weight"), block.get_parameter("out.weight")
    around = torch.zeros(2, 5, 7, 8)
    around[:, 1:4, 1:6] = x
    expected = torch.empty_like(x)
    for r in range(3):
        for c in range(5):
            h = around[:, r : r + 3, c : c + 3].flatten(1) @ near.T
            expected[:, r, c] = x[:, r, c] + (h * h.sigmoid()) @ out.T
    expected = expected * torch.rsqrt(expected.square().mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(block(x), expected)
    wide = operator.for_task(Maze(7, 4))
    new = wide.outer_step(start(wide, 3), wide.embed(torch.ones(3, 28, dtype=torch.uint8)))
    logits, q = wide.read(new)
    assert (new[0].shape, logits.shape, q.shape) == ((3, 7, 4, 8), (3, 28, 6), (3, 1))


@pytest.mark.parametrize("config", [UNITS, TOKEN, ATTENTION, GRID, replace(UNITS, states="single")])
def test_gradients_flow_through_the_last_cycle_only(config: OperatorConfig) -> None:
    operator = made(config, Sudoku((2, 2)))
    state, e = start(operator, 2), operator.embed(puzzle(4, 2)).detach()
    parameters = list(operator.blocks.parameters())

    def gradients(new: State) -> list[Tensor]:
        return list(
            torch.autograd.grad(torch.stack([z.square().mean() for z in new]).sum(), parameters)
        )

    with torch.no_grad():
        middle = operator.cycle(state, e, None, 0)
    last_only = gradients(operator.cycle(middle, e, None, 0))
    through_all = gradients(operator.cycle(operator.cycle(state, e, None, 0), e, None, 0))
    stepped = gradients(operator.outer_step(state, e))
    for a, b in zip(stepped, last_only, strict=True):
        torch.testing.assert_close(a, b)
    assert any(
        not torch.allclose(a, b, rtol=1e-3) for a, b in zip(stepped, through_all, strict=True)
    )
    leaf = tuple(z.clone().requires_grad_() for z in state)
    out = operator.outer_step(leaf, e)
    found = torch.autograd.grad(out[0].sum(), leaf, allow_unused=True)
    assert found == (None,) * len(leaf)


@pytest.mark.parametrize(
    "config",
    [UNITS, TOKEN, ATTENTION, GRID, HRM, replace(TOKEN, initial="fixed"), feed_forward(TOKEN)],
)
def test_state_dict_round_trip_and_blueprint(config: OperatorConfig) -> None:
    source = made(config, Sudoku((2, 2)))
    other = Operator(config, Sudoku((2, 2)))
    other.load_state_dict(source.state_dict())
    state = start(source, 2)
    e = source.embed(puzzle(4, 2))
    with torch.no_grad():
        for a, b in zip(source.outer_step(state, e), other.outer_step(state, e), strict=True):
            assert torch.equal(a, b)
    plan = Operator.blueprint(config)
    shapes = {name: value.shape for name, value in plan.state_dict().items()}
    assert shapes == {name: value.shape for name, value in source.state_dict().items()}
    assert plan.parameter_count == source.parameter_count
    assert all(value.is_meta for value in plan.state_dict().values())


@pytest.mark.parametrize("states", ["hierarchical", "single"])
@pytest.mark.parametrize("config", [UNITS, TOKEN, GRID, HRM])
def test_one_step_gradient_flows_through_the_last_updates_only(
    config: OperatorConfig, states: Literal["hierarchical", "single"]
) -> None:
    config = replace(config, states=states, gradient="update", stacks="shared", updates=3)
    operator = made(config, Sudoku((2, 2)))
    state, e = start(operator, 2), operator.embed(puzzle(4, 2)).detach()
    parameters = list(operator.blocks.parameters())
    whole = made(replace(config, gradient="cycle"), Sudoku((2, 2)))

    with torch.no_grad():
        *uppers, lower = whole.cycle(state, e, None, 0)
        injection = uppers[0] + e if uppers else e
        for _ in range(2):
            lower = whole.level(lower, injection)
    lower = operator.level(lower, injection)
    expected = [operator.level(uppers[0], lower), lower] if uppers else [lower]
    found = operator.outer_step(state, e)
    for a, b, c in zip(found, expected, whole.outer_step(state, e), strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)

    def gradients(new: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(torch.stack([z.square().mean() for z in new]).sum(), parameters)

    for a, b in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mixer", [UNITS, TOKEN, ATTENTION, GRID])
def test_separate_stacks_update_a_state_each(mixer: OperatorConfig) -> None:
    config = replace(mixer, cycles=1, updates=1, blocks=2, damping=0.0)
    shared = made(config, Sudoku((2, 2)))
    operator = made(replace(config, stacks="separate"), Sudoku((2, 2)))
    assert len(operator.blocks) == 2 * len(shared.blocks)
    assert operator.config.layers_per_step == shared.config.layers_per_step
    state, e = start(operator, 2), operator.embed(puzzle(4, 2))
    with torch.no_grad():
        upper, lower = operator.outer_step(state, e)
        for block in operator.blocks[2:]:
            for weight in block.parameters():
                weight.mul_(2)
        other_upper, same_lower = operator.outer_step(state, e)
        assert torch.equal(lower, same_lower)
        assert not torch.allclose(upper, other_upper, rtol=1e-2)
        for block, source in zip(operator.blocks, [*shared.blocks, *shared.blocks], strict=True):
            block.load_state_dict(source.state_dict())
        for a, b in zip(operator.outer_step(state, e), shared.outer_step(state, e), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("mixer", [UNITS, TOKEN, ATTENTION, GRID])
def test_a_feed_forward_net_passes_its_layers_once_whatever_the_depth(
    mixer: OperatorConfig,
) -> None:
    config = feed_forward(mixer)
    assert config.layers_per_step == 3
    operator = made(config, Sudoku((2, 2)))
    e = operator.embed(puzzle(4, 2)).detach().requires_grad_()
    first = operator.outer_step(operator.fixed_state(2), e)
    second = operator.outer_step(first, e)
    assert torch.equal(residual(second, first), torch.zeros(2))
    assert torch.equal(first[0], operator.outer_step(start(operator, 2), e)[0])
    u = e
    for block in operator.blocks:
        u = block(u, operator.task.layout) if config.mixer == "units" else block(u)
    assert torch.equal(first[0], u)
    logits, _ = operator.read(first)
    logits.square().sum().backward()
    for name, weight in operator.blocks.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    assert e.grad is not None


def test_noise_is_drawn_once_an_update_and_added_unscaled() -> None:
    operator = made(UNITS, Sudoku((2, 2)))
    state, e = start(operator, 1), operator.embed(puzzle(4, 1))
    asked: list[int] = []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.full_like(state[0], 0.25)

    with torch.no_grad():
        operator.outer_step(state, e, noise)
        quiet = operator.level(state[0], state[1])
        noisy = operator.level(state[0], state[1], noise(0))
    assert asked[:-1] == list(range(operator.config.cycles * operator.draws_per_cycle))
    torch.testing.assert_close(noisy - quiet, torch.full_like(quiet, 0.25))


def test_a_fixed_state_is_the_stored_one_everywhere() -> None:
    operator = made(replace(TOKEN, initial="fixed"), Sudoku((2, 2)))
    upper, lower = operator.fixed_state(3)
    assert upper.shape == (3, 16, 8)
    assert torch.equal(upper[2, 5], operator.start[0])
    assert torch.equal(lower[0, 15], operator.start[1])


def test_residual_is_relative_and_per_row() -> None:
    old = (torch.zeros(2, 3), torch.ones(2, 2))
    new = (torch.tensor([[2.0, 0, 0], [0, 0, 0]]), torch.tensor([[1.0, 2.0], [1.0, 1.0]]))
    expected = torch.tensor([5**0.5 / 3, 0.0])
    torch.testing.assert_close(residual(new, old), expected)


def test_truncated_normal_covers_its_range_with_the_asked_deviation() -> None:
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = truncated_normal(u, 0.5)
    assert x.std().item() == pytest.approx(0.5, rel=1e-3)
    assert x.abs().max().item() <= 2 * 0.5 * 1.1368473
    assert torch.equal(x, x.sort().values)


@pytest.mark.parametrize(
    ("config", "task", "message"),
    [
        (replace(UNITS, task="maze"), Sudoku((2, 2)), "solves maze, not sudoku"),
        (TOKEN, Sudoku((3, 3)), "16 cells, not 81"),
        (replace(TOKEN, vocabulary=3), Sudoku((2, 2)), "vocabulary of 3; sudoku 4x4 needs 6"),
        (replace(UNITS, constraint_kinds=1), Sudoku((2, 2)), "constraint_kinds 1; .* needs 3"),
    ],
)
def test_tasks_that_do_not_fit(config: OperatorConfig, task: Sudoku, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Operator(config, task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": "magic"}, "mixer is 'magic'"),
        ({"hidden": 0}, "hidden is 0"),
        ({"hidden": 10**5000}, "hidden is an integer of more than 20 digits"),
        ({"constraint_kinds": 0}, "constraint_kinds"),
        ({"mixer": "token", "vocabulary": 6}, "number of tokens"),
        ({"mixer": "attention", "vocabulary": 1}, "vocabulary"),
        ({"mixer": "attention", "vocabulary": 6, "heads": 3}, "multiple of twice heads"),
        ({"task": ""}, "task"),
        ({"stacks": "three"}, "stacks is 'three'; it must be one of shared, separate"),
        ({"gradient": "all"}, "gradient is 'all'"),
        ({"stacks": "separate", "states": "single"}, "with states 'single' there is only one"),
        ({"states": "none"}, "cycles is 2; a net without states has cycles 1"),
        ({**feed_forward(UNITS).to_dict(), "updates": 2}, "has updates 1"),
        ({**feed_forward(UNITS).to_dict(), "noise": 0.1}, "has noise 0.0"),
        ({**feed_forward(UNITS).to_dict(), "damping": 0.1}, "has damping 0.0"),
        ({**feed_forward(UNITS).to_dict(), "initial": "random"}, "has initial fixed"),
        ({**feed_forward(UNITS).to_dict(), "gradient": "update"}, "has gradient cycle"),
        ({**feed_forward(UNITS).to_dict(), "stacks": "separate"}, "there is only one"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OperatorConfig.from_dict(UNITS.to_dict() | changes)


def test_configuration_round_trip_and_layers() -> None:
    for config in (UNITS, HRM, feed_forward(TOKEN)):
        assert OperatorConfig.from_dict(config.to_dict()) == config
    assert UNITS.layers_per_step == 2 * (3 + 1) * 2
    assert replace(UNITS, states="single").layers_per_step == 2 * 3 * 2


def test_a_configuration_from_before_the_baselines_loads_as_it_was() -> None:
    values = UNITS.to_dict()
    del values["stacks"], values["gradient"]
    assert OperatorConfig.from_dict(values) == UNITS


@pytest.mark.parametrize(
    ("recipe", "layers", "parameters"),
    [
        ("sudoku9-paper", 42, 4_854_785),
        ("trm", 42, 4_854_785),
        ("hrm", 2 * (2 + 1) * 4, 27_274_753),
        ("feedforward", 42, 101_714_945),
        ("maze30-paper", 15, 263_809),
        ("maze", 12, 41_409),
    ],
)
def test_operators_of_the_paper_and_its_baselines(
    recipe: str, layers: int, parameters: int
) -> None:
    config = load_recipe(recipe).operator
    assert config.layers_per_step == layers
    assert Operator.blueprint(config).parameter_count == parameters

"""Grids smaller than the frame of an `attention` operator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner

from eqr_core.cli import app
from eqr_core.data.mazes import WantedMazes
from eqr_core.data.puzzles import write_puzzles
from eqr_core.data.units import first_rows
from eqr_core.engine.budget import Budget
from eqr_core.errors import ModelError, RecipeError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import read_card, save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import rms_norm, rotary_tables, rotate
from eqr_core.model.mixers import AttentionBlock
from eqr_core.model.operator import Operator, State, residual
from eqr_core.solver import Solver
from eqr_core.tasks.maze import Maze
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import HeldOut, SizeMix, load_recipe

CONFIG = OperatorConfig("maze", "attention", 16, 1, 2, 2, heads=2, vocabulary=6, frame="6x9")
FRAME, SMALL = Maze(6, 9), Maze(4, 5)
MAZE = "S  # ##/#   # #/  ## # / #     /   #G##"
"""5x7."""


def made(config: OperatorConfig, task: Maze) -> Operator:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        operator = Operator(config, task)
        torch.nn.init.normal_(operator.q_head.weight)
        return operator


def start(operator: Operator, batch: int) -> tuple[State, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 6, (batch, operator.task.tokens), generator=generator)
    shape = (batch, *operator.state_shape)
    state = tuple(torch.randn(shape, generator=generator) for _ in range(operator.state_count))
    return state, tokens


def padded(x: Tensor) -> Tensor:
    """`x` [batch, cells of SMALL, ...] in the top left corner of FRAME; pad cells are rubbish."""
    grid = x.unflatten(1, (SMALL.rows, SMALL.columns))
    whole = torch.full((len(x), FRAME.rows, FRAME.columns, *x.shape[2:]), 3, dtype=x.dtype)
    whole[:, : SMALL.rows, : SMALL.columns] = grid
    return whole.flatten(1, 2)


REAL = padded(torch.zeros(1, SMALL.tokens))[0] == 0


class Masked(Operator):
    """The whole frame, whose pad cells no cell attends to."""

    def _pass(self, u: Tensor, upper: bool = False) -> Tensor:
        (block,) = self.blocks
        assert isinstance(block, AttentionBlock)
        batch, tokens, hidden = u.shape
        heads = (batch, tokens, 3, self.config.heads, hidden // self.config.heads)
        query, key, value = block.mix.qkv(u).view(heads).permute(2, 0, 3, 1, 4)
        cos, sin = rotary_tables(torch.arange(tokens), heads[-1])
        mixed = F.scaled_dot_product_attention(
            rotate(query, cos, sin),
            rotate(key, cos, sin),
            value,
            attn_mask=REAL.expand(tokens, tokens),
        )
        u = rms_norm(u + block.mix.out(mixed.transpose(1, 2).reshape(u.shape)))
        return rms_norm(u + block.mlp(u))


def test_a_smaller_grid_is_computed_as_the_frame_with_its_pad_cells_masked() -> None:
    operator = made(CONFIG, FRAME)
    masked = Masked(CONFIG, FRAME)
    masked.load_state_dict(operator.state_dict())
    small = operator.for_task(SMALL)
    state, tokens = start(small, 3)
    whole = tuple(map(padded, state))
    with torch.no_grad():
        for _ in range(2):
            before, state = state, small.outer_step(state, small.embed(tokens))
            whole = masked.outer_step(whole, masked.embed(padded(tokens)))
        for a, b in zip(state, whole, strict=True):
            torch.testing.assert_close(a, b[:, REAL], rtol=1e-4, atol=1e-5)
        (logits, q), (all_logits, same_q) = small.read(state), masked.read(whole)
    torch.testing.assert_close(logits, all_logits[:, REAL], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q, same_q, rtol=1e-4, atol=1e-5)
    assert residual(state, before).shape == (3,)
    counted = made(replace(CONFIG, frame=None), FRAME).for_task(SMALL)
    other = counted.outer_step(before, counted.embed(tokens))
    assert not torch.allclose(other[0], state[0], rtol=1e-2, atol=1e-2)


def test_the_whole_frame_is_computed_to_the_bit_as_without_one() -> None:
    framed = made(replace(CONFIG, frame="30x30"), Maze(30, 30))
    bare = made(replace(CONFIG, frame=None), Maze(30, 30))
    state, tokens = start(framed, 2)
    found = framed.outer_step(state, framed.embed(tokens))
    for a, b in zip(found, bare.outer_step(state, bare.embed(tokens)), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(framed.read(found), bare.read(found), strict=True):
        assert torch.equal(a, b)


def test_gradients_flow_from_a_smaller_grid() -> None:
    operator = made(CONFIG, FRAME).for_task(SMALL)
    state, tokens = start(operator, 2)
    logits, q = operator.read(operator.outer_step(state, operator.embed(tokens)))
    (logits.square().mean() + q.square().mean()).backward()
    for name, weight in operator.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("task", [Maze(7, 9), Maze(3, 10)])
def test_a_grid_larger_than_the_frame_is_refused(task: Maze) -> None:
    with pytest.raises(ModelError, match=f"grids up to 6x9, not {task.size}"):
        made(CONFIG, FRAME).for_task(task)


@pytest.mark.parametrize("field", ["puzzles", "untrained_sizes", "held_out"])
def test_a_recipe_for_sizes_beyond_the_frame_is_refused(field: str) -> None:
    recipe = load_recipe("maze30-paper")
    given: dict[str, Any] = {
        "puzzles": (*recipe.puzzles, SizeMix("9x31", 1.0, 4, 20)),
        "untrained_sizes": ("5x5-9x31",),
        "held_out": (HeldOut("9x31", 4, 4),),
    }
    with pytest.raises(RecipeError, match="size is 9x31; the operator's frame is 30x30"):
        replace(recipe, **{field: given[field]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": "30"}, "frame is '30'; it must read like 30x30"),
        ({"frame": "5x5-30x30"}, "it must read like 30x30"),
        ({"frame": 30}, "frame is 30; it must read like 30x30"),
        ({"rotary": False}, "only the attention mixer with rotary has one"),
        ({"mixer": "grid"}, "frame is '6x9'; only the attention mixer"),
    ],
)
def test_frames_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OperatorConfig.from_dict(CONFIG.to_dict() | changes)


def test_a_configuration_without_a_frame_is_written_as_before(tmp_path: Path) -> None:
    weights = made(CONFIG, FRAME).state_dict()
    for config in (CONFIG, replace(CONFIG, frame=None)):
        save_checkpoint(tmp_path, weights, Card("m", "maze", config, ("6x9",)))
        written = json.loads((tmp_path / "card.json").read_text())["operator"]
        assert written.get("frame") == config.frame
        assert ("frame" in written) == bool(config.frame)
        assert read_card(tmp_path).operator == config
    assert "frame" not in load_recipe("maze").to_dict()["operator"]


def test_a_model_trained_in_its_frame_takes_smaller_mazes(tmp_path: Path) -> None:
    base = load_recipe("maze30-paper")
    paths = {"perfect": [3, 9]}
    recipe = replace(
        base,
        operator=replace(base.operator, hidden=16, heads=2, frame="9x9"),
        puzzles=tuple(SizeMix(size, 1.0, 4, 20, generator=paths) for size in ("9x9", "6x7")),
        untrained_sizes=("5x5-9x9",),
        steps=4,
        depth=2,
        warmup=1,
        validate_every=4,
        validation_rows=4,
    )
    Trainer(recipe, tmp_path, compiled=False).run()
    best = tmp_path / "best"
    assert read_card(best).sizes == ("9x9", "6x7", "5x5-9x9")
    answer = Solver.load(best).solve(MAZE, Budget(depth=4, breadth=2))
    assert [len(row) for row in answer.grid] == [7] * 5
    with pytest.raises(ModelError, match="5x5-9x9, not maze 5x10"):
        Solver.load(best).solve("/".join(row + "###" for row in MAZE.split("/")))

    data = tmp_path / "mazes.csv"
    write_puzzles(data, first_rows(WantedMazes(5, 7), 4))
    args = ["eval", "--model", best, "--data", data, "--depth", 4, "--breadth", 2]
    result = CliRunner().invoke(app, [*map(str, args), "--json", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "found.json").read_text())["rows"] == 4

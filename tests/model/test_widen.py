"""An operator of twice the width does what the narrow one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eqr_core.errors import ModelError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import assemble, load_checkpoint, save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.model.widen import widened
from eqr_core.tasks import task_at

UNITS = OperatorConfig("sudoku", "units", 8, 2, 1, 3, constraint_kinds=3, expansion=2.0)
CONFIGS = [
    UNITS,
    replace(UNITS, states="single", blocks=1),
    replace(UNITS, initial="fixed", stacks="separate", q_outputs=2),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_halves_stay_equal_and_read_as_the_narrow_one(
    config: OperatorConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = task_at("sudoku", 4, 4)
    narrow = Operator(config, task)
    torch.nn.init.normal_(narrow.q_head.weight)
    card = Card("narrow", "sudoku", config, ("4x4",), license="Apache-2.0")
    save_checkpoint(tmp_path, *widened(narrow.state_dict(), card))
    weights, wide_card = load_checkpoint(tmp_path)
    assert (wide_card.name, wide_card.operator.hidden) == ("narrow-wide", 16)
    assert wide_card.sizes == ("4x4",)
    assert wide_card.license == "Apache-2.0"
    assert wide_card.description == "narrow twice as wide (eqr models widen), not trained since."
    wide = assemble(weights, wide_card.operator, task)
    question = torch.randint(0, 5, (3, 16), dtype=torch.uint8)
    shape = (3, *narrow.state_shape)
    state = tuple(torch.randn(shape) for _ in range(narrow.state_count))
    double = tuple(torch.cat([part, part], -1) for part in state)
    for _ in range(3):
        state = narrow.outer_step(state, narrow.embed(question))
        double = wide.outer_step(double, wide.embed(question))
        for part, both in zip(state, double, strict=True):
            torch.testing.assert_close(both, torch.cat([part, part], -1), rtol=1e-4, atol=1e-4)
    for found, wanted in zip(wide.read(double), narrow.read(state), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_other_mixers_are_refused() -> None:
    config = replace(UNITS, mixer="attention", constraint_kinds=0, vocabulary=6, heads=2)
    with pytest.raises(ModelError, match="its mixer is attention; only units can be widened"):
        widened({}, Card("other", "sudoku", config, ("4x4",)))

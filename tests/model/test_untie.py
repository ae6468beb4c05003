"""An operator with several sets of blocks: it begins as the one it was, and takes them in turn."""

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
from eqr_core.model.untie import untied
from eqr_core.tasks import task_at

UNITS = OperatorConfig("sudoku", "units", 8, 2, 2, 4, states="single", constraint_kinds=3)
TOKEN = OperatorConfig("sudoku", "token", 8, 1, 1, 2, states="single", tokens=16, vocabulary=6)


@pytest.mark.parametrize(("config", "sets"), [(UNITS, 2), (UNITS, 4), (TOKEN, 2)])
def test_equal_sets_do_what_one_does(config: OperatorConfig, sets: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = task_at("sudoku", 4, 4)
    tied = Operator(config, task)
    card = Card("tied", "sudoku", config, ("4x4",), license="Apache-2.0")
    save_checkpoint(tmp_path, *untied(tied.state_dict(), card, sets))
    weights, made = load_checkpoint(tmp_path)
    assert (made.name, made.operator) == ("tied-untied", replace(config, sets=sets))
    assert (made.sizes, made.license) == (("4x4",), "Apache-2.0")
    assert (
        made.description == f"tied with {sets} sets of blocks (eqr models untie), untrained since."
    )
    operator = assemble(weights, made.operator, task)
    assert len(operator.blocks) == sets * config.blocks
    question = torch.randint(0, 5, (3, 16), dtype=torch.uint8)
    state = (torch.randn(3, *tied.state_shape),)
    ours = operator.outer_step(state, operator.embed(question))
    assert torch.equal(ours[0], tied.outer_step(state, tied.embed(question))[0])


def test_updates_take_the_sets_in_turn_in_every_cycle() -> None:
    torch.manual_seed(0)
    config = replace(UNITS, sets=2, noise=0.0)
    operator = Operator(config, task_at("sudoku", 4, 4)).requires_grad_(False)
    sets = [
        Operator(replace(config, sets=1), operator.task).requires_grad_(False) for _ in range(2)
    ]
    for index, one in enumerate(sets):
        one.blocks = operator.blocks[2 * index : 2 * index + 2]
    question = torch.randint(0, 5, (3, 16), dtype=torch.uint8)
    e, z = operator.embed(question), torch.randn(3, *operator.state_shape)
    (ours,) = operator.outer_step((z,), e)
    for _cycle in range(2):
        for update in range(4):
            z = sets[update % 2].level(z, e)
    assert torch.equal(ours, z)


def test_several_sets_are_refused_where_they_cannot_be_taken_in_turn() -> None:
    for changes in ({"sets": 3}, {"sets": 2, "states": "hierarchical"}):
        with pytest.raises(ModelError, match=r"sets is .; more than 1 need states 'single'"):
            replace(UNITS, **changes)
    with pytest.raises(ModelError, match="sets is 0; it must be a whole number from 1 to 1024"):
        replace(UNITS, sets=0)
    card = Card("two", "sudoku", replace(UNITS, sets=2), ("4x4",))
    with pytest.raises(ModelError, match="two: it has 2 sets of blocks already"):
        untied({}, card, 4)
    with pytest.raises(ModelError, match=r"updates \(4\) must be a multiple of them"):
        untied({}, replace(card, operator=UNITS), 3)


def test_cards_without_the_field_mean_one_set() -> None:
    assert "sets" not in UNITS.to_dict()
    assert OperatorConfig.from_dict(UNITS.to_dict()) == UNITS
    two = replace(UNITS, sets=2)
    assert OperatorConfig.from_dict(two.to_dict()) == two

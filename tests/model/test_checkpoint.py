from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eqr_core.errors import CheckpointError, ModelError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import (
    CARD,
    WEIGHTS,
    build_operator,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    update_card,
    zoo_names,
)
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks.sudoku import Sudoku

CONFIG = OperatorConfig("sudoku", "units", 8, 2, 1, 3, constraint_kinds=3, expansion=2.0)
BARE = Card(
    "little",
    "sudoku",
    CONFIG,
    ("4x4", "9x9"),
    tolerance=1e-3,
    training={"steps": 5, "seeds": [1, 2]},
    results=({"data": "a.csv", "right": 3, "of": 4},),
)


def operator(seed: int = 0) -> Operator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Operator(CONFIG, Sudoku((2, 2)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "little", operator().state_dict(), BARE)
    return tmp_path / "little"


def edit_card(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / CARD).read_text()) | changes
    (folder / CARD).write_text(json.dumps(values))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip(folder: Path) -> None:
    weights, card = load_checkpoint(folder)
    assert equal(weights, dict(operator().state_dict()))
    assert replace(card, digest="", parameters=0) == BARE
    assert card.parameters == operator().parameter_count
    assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]


def test_built_operators_of_all_sizes_share_the_weights(folder: Path) -> None:
    weights, card = load_checkpoint(folder)
    small = build_operator(weights, card, Sudoku((2, 2)))
    large = build_operator(weights, card, Sudoku((3, 3)))
    assert small.head.weight.data_ptr() == large.head.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in large.parameters())
    assert not large.training
    tokens = torch.ones(1, 81, dtype=torch.long)
    state = tuple(torch.ones(1, *large.state_shape) for _ in range(large.state_count))
    with torch.no_grad():
        logits, _ = large.read(large.outer_step(state, large.embed(tokens)))
        other = operator().for_task(Sudoku((3, 3)))
        expected, _ = other.read(other.outer_step(state, other.embed(tokens)))
    assert torch.equal(logits, expected)


def test_building_leaves_the_weights_trainable(folder: Path) -> None:
    source = operator()
    _, card = load_checkpoint(folder)
    build_operator(dict(source.named_parameters()), card, Sudoku((2, 2)))
    assert all(parameter.requires_grad for parameter in source.parameters())


def test_every_flipped_byte_of_the_weights_is_noticed(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    for place in range(0, len(data), 97):
        changed = bytearray(data)
        changed[place] ^= 1
        (folder / WEIGHTS).write_bytes(changed)
        with pytest.raises(CheckpointError, match="digest"):
            load_checkpoint(folder)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")
    weights, card = (folder / WEIGHTS).read_bytes(), (folder / CARD).read_bytes()
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"{CARD} is there, {WEIGHTS} is missing"):
        load_checkpoint(folder)
    (folder / WEIGHTS).touch()
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load_checkpoint(folder)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).unlink()
    with pytest.raises(CheckpointError, match=f"{CARD} is missing"):
        load_checkpoint(folder)
    (folder / CARD).write_bytes(card)
    load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"format_version": 2}, "format_version is 2"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name is 3"),
        ({"sizes": []}, "sizes"),
        ({"sizes": ["9 by 9"]}, "9 by 9"),
        ({"sizes": "9x9"}, "sizes"),
        ({"digest": "abc"}, "digest"),
        ({"digest": None}, "digest"),
        ({"parameters": -1}, "parameters"),
        ({"parameters": 12}, "parameters is 12; the operator has"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": True}, "tolerance is True"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"calibration": []}, "calibration"),
        ({"results": [1]}, "results"),
        ({"license": None}, "license"),
        ({"task": "chess"}, "task is 'chess'"),
        ({"operator": 7}, "operator is 7"),
        ({"operator": CONFIG.to_dict() | {"wings": 2}}, "unknown field 'wings'"),
        ({"operator": {"task": "sudoku"}}, "the field 'mixer' is missing"),
        ({"operator": CONFIG.to_dict() | {"hidden": 8.0}}, "hidden is 8.0"),
        ({"operator": CONFIG.to_dict() | {"blocks": True}}, "blocks is True"),
        ({"operator": CONFIG.to_dict() | {"blocks": 10**9}}, "blocks is 1000000000"),
        ({"operator": CONFIG.to_dict() | {"mixer": "magic"}}, "mixer is 'magic'"),
        ({"operator": CONFIG.to_dict() | {"damping": float("nan")}}, "damping is nan"),
        ({"operator": CONFIG.to_dict() | {"rotary": "yes"}}, "rotary is 'yes'"),
        ({"operator": CONFIG.to_dict() | {"hidden": 16}}, "blocks.0.out.weight|embedding"),
        ({"operator": CONFIG.to_dict() | {"blocks": 3}}, "blocks.2.out.weight is missing"),
        ({"operator": CONFIG.to_dict() | {"blocks": 1}}, "no tensor blocks.1"),
    ],
)
def test_cards_that_are_refused(changes: dict[str, Any], message: str, folder: Path) -> None:
    edit_card(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [*vars(BARE), "format_version"])
def test_a_card_without_a_field_is_refused(field: str, folder: Path) -> None:
    values = json.loads((folder / CARD).read_text())
    del values[field]
    (folder / CARD).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=field):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_cards_that_are_no_json_object(text: bytes, folder: Path) -> None:
    (folder / CARD).write_bytes(text)
    with pytest.raises(CheckpointError, match=CARD):
        load_checkpoint(folder)


def test_weights_that_are_no_safetensors_or_not_float32(folder: Path) -> None:
    save_file({n: v.half() for n, v in operator().state_dict().items()}, folder / WEIGHTS)
    for data in (b"", b"x" * 100, struct.pack("<Q", 2**62), (folder / WEIGHTS).read_bytes()):
        (folder / WEIGHTS).write_bytes(data)
        edit_card(folder, digest=hashlib.sha256(data).hexdigest())
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)


def test_weights_and_configuration_must_agree_when_saving(tmp_path: Path) -> None:
    weights = dict(operator().state_dict())
    del weights["head.weight"]
    with pytest.raises(CheckpointError, match=r"head\.weight is missing"):
        save_checkpoint(tmp_path / "x", weights, BARE)
    weights["head.weight"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"head.weight is \[2, 2\].* makes it \[1, 8\]"):
        save_checkpoint(tmp_path / "x", weights, BARE)
    assert not (tmp_path / "x").exists()


def test_values_that_json_has_not_are_refused(folder: Path) -> None:
    for value in (float("nan"), torch.ones(1)):
        with pytest.raises(CheckpointError, match="card"):
            save_checkpoint(
                folder, operator(1).state_dict(), replace(BARE, calibration={"a": value})
            )
        weights, _ = load_checkpoint(folder)
        assert equal(weights, dict(operator().state_dict()))


class _Crash(BaseException):
    """What a killed process is to the code under test."""


def _crash_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Stop before the n-th fsync or rename of a save, and count how many there were."""
    count = 0

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                raise _Crash
            return original(*args)

        return wrapper

    monkeypatch.setattr(os, "fsync", guarded(os.fsync))
    monkeypatch.setattr(Path, "replace", guarded(Path.replace))
    return lambda: count


def test_a_crash_at_any_moment_leaves_one_of_the_two(tmp_path: Path) -> None:
    old, new = dict(operator(1).state_dict()), dict(operator(2).state_dict())
    outcomes = []
    for call in range(1, 20):
        folder = tmp_path / str(call)
        save_checkpoint(folder, old, BARE)
        with pytest.MonkeyPatch.context() as patch:
            calls = _crash_at(call, patch)
            try:
                save_checkpoint(folder, new, replace(BARE, description="new"))
            except _Crash:
                finished = False
            else:
                finished = calls() < call
        weights, card = load_checkpoint(folder)
        assert equal(weights, new if card.description else old)
        outcomes.append(card.description)
        save_checkpoint(folder, old, BARE)
        assert equal(load_checkpoint(folder)[0], old)
        assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]
        if finished:
            break
    assert outcomes == sorted(outcomes)
    assert {"", "new"} == set(outcomes)


def test_update_card(folder: Path) -> None:
    weights, card = load_checkpoint(folder)
    update_card(folder, replace(card, tolerance=0.5))
    again, changed = load_checkpoint(folder)
    assert changed == replace(card, tolerance=0.5)
    assert equal(weights, again)
    with pytest.raises(CheckpointError, match="no digest"):
        update_card(folder, BARE)
    with pytest.raises(CheckpointError, match="the new card means the weights 0000"):
        update_card(folder, replace(card, digest="0" * 64))


def test_find_checkpoint(folder: Path) -> None:
    assert find_checkpoint(str(folder)) == folder
    for name in zoo_names():
        assert load_checkpoint(find_checkpoint(name))[1].name
    with pytest.raises(ModelError, match="unknown model 'nowhere'"):
        find_checkpoint("nowhere")
    with pytest.raises(ModelError, match="unknown model ''"):
        find_checkpoint("")


def test_the_task_must_fit(folder: Path) -> None:
    weights, card = load_checkpoint(folder)
    other = replace(card, task="maze", operator=replace(CONFIG, task="maze"))
    with pytest.raises(ModelError, match="solves maze, not sudoku"):
        build_operator(weights, other, Sudoku((2, 2)))

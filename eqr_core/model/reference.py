"""Reads checkpoints of the reference implementation (EqR and TRM) and makes them ours.

Their file is one torch.save of a training state; `model` holds the raw weights, `ema` the
averaged ones that its evaluator uses, `config.arch` the hyper-parameters. Vocabulary, width and
number of tokens are not in the configuration: they follow from the shapes.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqr_core.errors import CheckpointError, ModelError
from eqr_core.model.archive import Archive
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import check_shapes, check_sizes, check_vacant, save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import NORM_EPS, ROTARY_BASE
from eqr_core.model.pickles import Inert, TensorView
from eqr_core.tasks import TASK_NAMES

Shape = tuple[int, ...]

MAX_WEIGHTS = 2**28
WRAPPERS = ("model", "inner")
NAMES = {
    "embed_tokens.embedding_weight": "embedding",
    "lm_head.weight": "head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
    "H_init": "H_init",
    "L_init": "L_init",
}
BLOCK = re.compile(r"L_level\.layers\.(\d{1,4})\.([a-z_.]+)")
BLOCK_NAMES = {
    "mlp.gate_up_proj.weight": "mlp.gate_up.weight",
    "mlp.down_proj.weight": "mlp.down.weight",
    "mlp_t.gate_up_proj.weight": "mix.gate_up.weight",
    "mlp_t.down_proj.weight": "mix.down.weight",
    "self_attn.qkv_proj.weight": "mix.qkv.weight",
    "self_attn.o_proj.weight": "mix.out.weight",
}
STARTS = ("H_init", "L_init")
"""TRM's stored initial states, z_H first: one tensor `start` in ours."""


@dataclass(frozen=True)
class Reference:
    """What a reference checkpoint holds, in our names."""

    weights: dict[str, Tensor]
    """As `Operator.state_dict()`, float32."""
    operator: OperatorConfig
    tokens: int | None
    """Tokens of the grids it was trained on, where the file says so."""
    step: int
    averaged: bool
    """Whether these are the EMA weights."""


def read_reference(path: Path, task: str | None = None, ema: bool = True) -> Reference:
    """Weights and configuration of a reference `.pth`.

    The EMA weights unless `ema` is off or the file has none. Without `task` it is told from
    vocabulary and tokens. CheckpointError names what is wrong or not allowed; nothing in the
    file is executed.
    """
    with Archive(path) as archive:
        try:
            content = _mapping(archive.content, "the checkpoint")
            views, averaged = _weight_views(content, ema)
            config = _mapping(content.get("config"), "config")
            tokens = _tokens(views, content.get("carry"))
            arch = _mapping(config.get("arch"), "config.arch")
            operator = operator_config({n: v.size for n, v in views.items()}, arch, task, tokens)
            check_shapes(with_start({n: v.size for n, v in views.items()}), operator)
            step = content.get("step")
            if type(step) is not int:
                raise CheckpointError("step is missing or no whole number")
        except ModelError as error:
            raise CheckpointError(f"{path}: {error}") from None
        weights = {name: archive.tensor(view).float() for name, view in views.items()}
    if STARTS[0] in weights:
        weights["start"] = torch.stack([weights.pop(name) for name in STARTS])
    return Reference(weights, operator, tokens, step, averaged)


def import_reference(
    path: Path, folder: Path, name: str, task: str | None = None, size: str | None = None
) -> Card:
    """Write a reference `.pth` as a checkpoint of ours and return its card.

    `size` such as ``30x30`` is needed where the file does not tell it, or the grid is not square.
    CheckpointError where `folder` holds a checkpoint already; ModelError where the network does
    not fit the size.
    """
    check_vacant(folder)
    found = read_reference(path, task)
    if size is None:
        side = math.isqrt(found.tokens or 0)
        if not side or side * side != found.tokens:
            raise CheckpointError(f"{path}: the grid's size is not in the file; name it")
        size = f"{side}x{side}"
    training = {
        "source": path.name,
        "implementation": "EqR reference",
        "steps": found.step,
        "weights": "ema" if found.averaged else "model",
    }
    card = Card(name, found.operator.task, found.operator, (size,), training=training)
    rows, columns = map(int, size.split("x"))
    if found.tokens not in (None, rows * columns):
        raise CheckpointError(
            f"{path}: size is {size}, {rows * columns} cells; the network was made for "
            f"{found.tokens}"
        )
    if card.task in TASK_NAMES:
        check_sizes(card)
    return save_checkpoint(folder, found.weights, card)


def our_name(name: str) -> str:
    """Name of a reference tensor in our state dict; H_init and L_init keep theirs."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while parts and parts[0] in WRAPPERS:
        parts = parts[1:]
    bare = ".".join(parts)
    block = BLOCK.fullmatch(bare)
    if block and block[2] in BLOCK_NAMES:
        return f"blocks.{int(block[1])}.{BLOCK_NAMES[block[2]]}"
    if bare not in NAMES:
        raise CheckpointError(f"the tensor {name[:200]} has no place in an operator")
    return NAMES[bare]


def operator_config(
    shapes: Mapping[str, Shape], arch: Mapping[str, Any], task: str | None, tokens: int | None
) -> OperatorConfig:
    """Configuration of a network from the shapes of `our_name`s and the reference's `arch`.

    ModelError where the two disagree or the network is none that `Operator` computes.
    """
    for name in ("embedding", "q_head.bias"):
        if name not in shapes:
            raise CheckpointError(f"the tensor {name} is missing")
    if len(shapes["embedding"]) != 2 or len(shapes["q_head.bias"]) != 1:
        raise CheckpointError("the embedding or the bias of the halting head has a wrong shape")
    vocabulary, hidden = shapes["embedding"]
    token_mixer = "blocks.0.mix.gate_up.weight" in shapes
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    expected = {
        "hidden_size": hidden,
        "L_layers": blocks,
        "mlp_t": token_mixer,
        "H_init_std": 1.0,
        "L_init_std": 1.0,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROTARY_BASE,
    }
    for name, value in expected.items():
        if arch.get(name, value) != value:
            raise CheckpointError(
                f"config.arch: {name} is {reprlib.repr(arch[name])}; "
                f"the weights and this implementation make it {value}"
            )
    positions = arch.get("pos_encodings") or "none"
    if not token_mixer and positions not in ("rope", "none"):
        raise CheckpointError(f"config.arch: pos_encodings is {reprlib.repr(positions)}")
    fixed = STARTS[0] in shapes
    damped = not fixed or arch.get("lambda_") is not None
    return OperatorConfig(
        task=task or _task(vocabulary, tokens),
        mixer="token" if token_mixer else "attention",
        hidden=hidden,
        blocks=blocks,
        cycles=_value(arch, "H_cycles"),
        updates=_value(arch, "L_cycles"),
        expansion=_value(arch, "expansion"),
        heads=_value(arch, "num_heads"),
        rotary=positions == "rope",
        tokens=tokens if token_mixer else None,
        vocabulary=vocabulary,
        damping=round(1 - _number(arch, "lambda_"), 12) if damped else 0.0,
        noise=_number(arch, "noise_scale") if damped else 0.0,
        initial="fixed" if fixed else "random",
        q_outputs=shapes["q_head.bias"][0],
    )


def _weight_views(content: dict[str, Any], ema: bool) -> tuple[dict[str, TensorView], bool]:
    views = _renamed(content.get("model"), "model")
    averaged = ema and content.get("ema") is not None
    if averaged:  # parameters only, so TRM's initial states stay those of `model`
        shadow = _mapping(content["ema"], "ema").get("shadow")
        views |= _renamed(shadow, "ema.shadow")
    count = sum(math.prod(view.size) for view in views.values())
    if count > MAX_WEIGHTS:
        raise CheckpointError(f"it claims {count} weights; at most {MAX_WEIGHTS} are read")
    return views, averaged


def _renamed(tensors: object, place: str) -> dict[str, TensorView]:
    views: dict[str, TensorView] = {}
    for name, view in _mapping(tensors, place).items():
        shown = f"{place}: {str(name)[:200]}"
        if not isinstance(view, TensorView) or not view.storage.dtype.is_floating_point:
            raise CheckpointError(f"{shown} is no tensor of floating-point numbers")
        ours = our_name(str(name))
        if ours in views:
            raise CheckpointError(f"{shown} is there twice")
        views[ours] = view
    return views


def with_start(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The shapes with H_init and L_init as the one tensor `start`."""
    starts = [shapes[name] for name in STARTS if name in shapes]
    joined = {name: shape for name, shape in shapes.items() if name not in STARTS}
    if starts:
        if len(starts) != len(STARTS) or starts[0] != starts[1]:
            raise CheckpointError("H_init and L_init do not agree")
        joined["start"] = (len(STARTS), *starts[0])
    return joined


def _tokens(views: dict[str, TensorView], carry: object) -> int | None:
    mix = views.get("blocks.0.mix.down.weight")
    if mix is not None and mix.size:
        return mix.size[0]
    match carry:
        case Inert({"inner_carry": Inert({"z_H": TensorView(size=(_, int(tokens), _))})}):
            return tokens
    return None


def _task(vocabulary: int, tokens: int | None) -> str:
    if tokens == (vocabulary - 2) ** 2:
        return "sudoku"
    if vocabulary == 6:
        return "maze"
    raise ModelError(f"vocabulary {vocabulary} and {tokens} tokens tell no task; name it")


def _mapping(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is missing or no dictionary")
    return value


def _value(arch: Mapping[str, Any], name: str) -> Any:
    if name not in arch:
        raise CheckpointError(f"config.arch: {name} is missing")
    return arch[name]


def _number(arch: Mapping[str, Any], name: str) -> float:
    value = _value(arch, name)
    if type(value) not in (int, float):
        raise CheckpointError(f"config.arch: {name} is {reprlib.repr(value)}, not a number")
    return float(value)

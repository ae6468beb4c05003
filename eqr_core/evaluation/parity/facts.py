"""Parity of plain facts: start values, widths, full-size models and token ids (facts.json)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from eqr_core.errors import ModelError
from eqr_core.evaluation.parity.comparison import EXACT, Comparison, compare, failed, read_json
from eqr_core.model.checkpoint import check_shapes
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import inner_width, truncated_normal
from eqr_core.model.operator import Operator
from eqr_core.model.reference import operator_config, our_name, with_start
from eqr_core.tasks import TASK_NAMES, task_at
from eqr_core.tasks.base import Cell
from eqr_core.training.loss import IGNORE

NAME = "facts"
EXPANSION = 4
VALUE_TOLERANCE = 1e-9
MOMENT_TOLERANCE = 1e-4
SAMPLE_TOLERANCE = 0.02
FREE = {
    **{"expansion": EXPANSION, "H_cycles": 1, "L_cycles": 1, "num_heads": 1},
    **{"lambda_": 0.95, "noise_scale": 0.0},
}
"""Hyper-parameters that change no shape; the shapes of the full-size models name none."""


def compare_facts(path: Path) -> list[Comparison]:
    """Every fact that a facts.json states and this package has an answer to."""
    facts = read_json(path)
    sections = {
        "truncated_normal": _truncated_normal,
        "initial_std": _initial_std,
        "full_size_models": _full_size_models,
        "find_multiple_256": _widths,
        "token_ids": _token_ids,
    }
    rows = [failed(NAME, name, "not a known section") for name in facts if name not in sections]
    for name, section in sections.items():
        if name in facts:
            rows.extend(section(facts[name]))
    return rows


def _truncated_normal(facts: Mapping[str, Any]) -> Iterator[Comparison]:
    low, high = facts["uniform_range"]

    def draw(u: torch.Tensor) -> torch.Tensor:
        return truncated_normal((u - low) / (high - low))

    u = torch.tensor([row["u"] for row in facts["table"]], dtype=torch.float64)
    x = [row["x_for_std_1"] for row in facts["table"]]
    yield compare(NAME, "truncated_normal table", draw(u), x, VALUE_TOLERANCE)
    ends = truncated_normal(torch.tensor([0.0, 1.0], dtype=torch.float64))
    bound = facts["clip_bound_over_std"]
    yield compare(NAME, "truncated_normal bounds", ends, [-bound, bound], VALUE_TOLERANCE)
    scale = ends[1] / facts["upper"]
    expected = facts["compensated_std_over_std"]
    yield compare(NAME, "truncated_normal scale", scale, expected, VALUE_TOLERANCE)
    expected = facts["uncompensated_truncated_std"]
    yield compare(NAME, "truncated_normal cut std", 1 / scale, expected, VALUE_TOLERANCE)
    middle = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    std = truncated_normal(middle).std()
    expected = facts["resulting_std_over_std"]
    yield compare(NAME, "truncated_normal std", std, expected, MOMENT_TOLERANCE)


def _initial_std(facts: Mapping[str, Any]) -> Iterator[Comparison]:
    vocabulary, hidden = 512, 256
    config = OperatorConfig(
        "parity", "attention", hidden, 1, 1, 1, vocabulary=vocabulary, initial="fixed"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = Operator.fresh(config).state_dict()
    bias = weights["q_head.bias"]
    yield compare(NAME, "initial q_head bias", bias, [facts["q_head_bias"]], EXACT)
    if facts["q_head_weight"] == "all zero":
        weight = weights["q_head.weight"]
        yield compare(NAME, "initial q_head weight", weight, torch.zeros_like(weight), EXACT)
    formulas = {"1/sqrt(hidden)": hidden**-0.5, "1/sqrt(fan_in)": hidden**-0.5}
    for fact, name in (("embed_tokens", "embedding"), ("linear", "head.weight")):
        if facts[fact] not in formulas:
            yield failed(NAME, f"initial std of {name}", f"{facts[fact]} is not known")
            continue
        ratio = weights[name].std() / formulas[facts[fact]]
        yield compare(NAME, f"initial std of {name}", ratio, 1.0, SAMPLE_TOLERANCE)


def _full_size_models(facts: Mapping[str, Any]) -> Iterator[Comparison]:
    for name, model in facts.items():
        try:
            shapes = {our_name(key): tuple(shape) for key, shape in model["state_dict"].items()}
            config = operator_config(shapes, FREE, "parity", model["seq_len"])
            joined = with_start(shapes)
            parameters = check_shapes(joined, config)
        except ModelError as error:
            yield failed(NAME, f"{name} shapes", str(error))
            continue
        yield Comparison(NAME, f"{name} shapes", 0.0, EXACT, True)
        yield compare(NAME, f"{name} parameters", parameters, model["parameters"], EXACT)
        buffers = math.prod(joined["start"]) if "start" in joined else 0
        expected = model["persistent_buffer_elements"]
        yield compare(NAME, f"{name} buffers", buffers, expected, EXACT)
        vocabulary = model["vocab_size"]
        yield compare(NAME, f"{name} vocabulary", config.vocabulary, vocabulary, EXACT)


def _widths(facts: Mapping[str, int]) -> Iterator[Comparison]:
    for width, expected in facts.items():
        ours = inner_width(int(width), EXPANSION)
        yield compare(NAME, f"inner width of {width}", ours, expected, EXACT)


def _token_ids(facts: Mapping[str, Any]) -> Iterator[Comparison]:
    yield compare(NAME, "ignored label", IGNORE, facts["ignore_label_in_loss"], EXACT)
    for name in ("sudoku", "maze"):
        if name not in facts:
            continue
        if name not in TASK_NAMES:
            note = "not compared: there is no such task"
            yield Comparison(NAME, f"{name} tokens", math.nan, math.nan, True, note)
            continue
        ids = facts[name]
        cells: dict[Cell, int] = dict(ids.get("chars", {}))
        if "digits" in ids:
            cells = {0: ids["blank"], **{int(d): token for d, token in ids["digits"].items()}}
        side = len(cells) - 1 if "digits" in ids else len(cells)
        task = task_at(name, side, side)
        values = [list(cells)[i % len(cells)] for i in range(side * side)]
        grid = tuple(tuple(values[r * side : (r + 1) * side]) for r in range(side))
        expected = [cells[value] for value in values]
        yield compare(NAME, f"{name} tokens", task.encode(grid).tolist(), expected, EXACT)
        yield compare(NAME, f"{name} vocabulary", task.vocabulary, ids["vocab_size"], EXACT)

"""An operator of one task size as the kernels see it: sizes, and tables that they walk through."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import CANDIDATE_KINDS, Operator
from eqr_core.tasks.base import ConstraintLayout

MOST_KINDS = 256
"""Rows of a table of embeddings that a byte tells apart."""
MULTIPLE = 32
"""Rows that the kernels compute together."""


class Shape(ctypes.Structure):
    """`Shape` of shape.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("candidates", "padded", "hidden", "inner")),
        *((name, ctypes.c_int64) for name in ("families", "kinds", "groups", "updates")),
        ("embeddings", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("group", "start", "member", "kind")),
        ("damping", ctypes.c_double),
        ("amx", ctypes.c_int64),
    )


class UnitsLayout:
    """A `units` operator over the constraint groups of a task, `updates` in one call."""

    mixer = "units"
    embeddings = CANDIDATE_KINDS

    def __init__(
        self, layout: ConstraintLayout, config: OperatorConfig, updates: int, amx: int
    ) -> None:
        self._groups = groups = Groups(layout, config.constraint_kinds)
        self.places = groups.candidates
        self.hidden = config.hidden
        self.shape = Shape(
            candidates=groups.candidates,
            padded=padded(groups.candidates),
            hidden=config.hidden,
            inner=inner_width(config),
            families=groups.group.shape[1],
            kinds=config.constraint_kinds,
            groups=groups.count,
            updates=updates,
            embeddings=self.embeddings,
            group=groups.group.data_ptr(),
            start=groups.start.data_ptr(),
            member=groups.member.data_ptr(),
            kind=groups.kind.data_ptr(),
            damping=config.damping,
            amx=amx,
        )


class GridShape(ctypes.Structure):
    """`GridShape` of grid.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "columns", "hidden", "inner")),
        *((name, ctypes.c_int64) for name in ("blocks", "updates", "embeddings")),
        ("damping", ctypes.c_double),
        ("amx", ctypes.c_int64),
    )


class GridLayout:
    """A `grid` operator on grids of one size, `updates` in one call."""

    mixer = "grid"

    def __init__(
        self, rows: int, columns: int, config: OperatorConfig, updates: int, amx: int
    ) -> None:
        self.places = rows * columns
        self.hidden = config.hidden
        self.embeddings = config.vocabulary
        self.shape = GridShape(
            rows=rows,
            columns=columns,
            hidden=config.hidden,
            inner=inner_width(config),
            blocks=config.blocks,
            updates=updates,
            embeddings=config.vocabulary,
            damping=config.damping,
            amx=amx,
        )


def operator_layout(operator: Operator, updates: int, amx: int) -> UnitsLayout | GridLayout | None:
    """How the kernels see `operator`, of `units` or `grid`, with so many updates in one call."""
    config, task = operator.config, operator.task
    if config.mixer == "grid":
        return GridLayout(task.rows, task.columns, config, updates, amx)
    if task.layout is None:
        return None
    return UnitsLayout(task.layout, config, updates, amx)


def inner_width(config: OperatorConfig) -> int:
    """Width of a block's activations."""
    return round(config.expansion * config.hidden)


def padded(count: int) -> int:
    """`count` rounded up to whole blocks of rows."""
    return -(-count // MULTIPLE) * MULTIPLE


class Groups:
    """Every constraint group of a layout, numbered through its families, kind by kind.

    `group` [candidates, families], `start` [groups + 1], `member` [candidates · families] and
    `kind` [kinds + 1], int32: see shape.h.
    """

    def __init__(self, layout: ConstraintLayout, kinds: int) -> None:
        self.candidates = math.prod(layout.axes)
        self.group = torch.zeros(self.candidates, len(layout.families), dtype=torch.int32)
        starts, members, kind_starts = [0], list[int](), [0]
        for kind in range(kinds):
            for index, family in enumerate(layout.families):
                if layout.weights[index] != kind:
                    continue
                for row in _groups(layout.axes, family):
                    self.group[row, index] = len(starts) - 1
                    members += row.tolist()
                    starts.append(len(members))
            empty = padded(len(starts) - 1) - (len(starts) - 1)
            starts += [len(members)] * empty
            kind_starts.append(len(starts) - 1)
        self.count = len(starts) - 1
        self.start, self.member, self.kind = map(_int32, (starts, members, kind_starts))


def _groups(axes: tuple[int, ...], family: tuple[int, ...]) -> Tensor:
    """Candidates of each group of a family, [groups, members]."""
    kept = [axis for axis in range(len(axes)) if axis not in family]
    order = torch.arange(math.prod(axes)).view(axes).permute(*kept, *family)
    return order.reshape(math.prod(axes[axis] for axis in kept), -1)


def _int32(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)

"""A task's constraint groups as the index tables that the kernels walk through."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import CANDIDATE_KINDS
from eqr_core.tasks.base import ConstraintLayout

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

    @classmethod
    def of(
        cls, groups: Groups, config: OperatorConfig, inner: int, updates: int, amx: int
    ) -> Shape:
        """Sizes of an operator over `groups`, which must outlive it; `updates` in one call."""
        return cls(
            candidates=groups.candidates,
            padded=padded(groups.candidates),
            hidden=config.hidden,
            inner=inner,
            families=groups.group.shape[1],
            kinds=config.constraint_kinds,
            groups=groups.count,
            updates=updates,
            embeddings=CANDIDATE_KINDS,
            group=groups.group.data_ptr(),
            start=groups.start.data_ptr(),
            member=groups.member.data_ptr(),
            kind=groups.kind.data_ptr(),
            damping=config.damping,
            amx=amx,
        )


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

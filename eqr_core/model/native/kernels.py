"""The C functions of units.cpp, called with tensors."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.native.layout import Groups, Shape
from eqr_core.model.operator import CANDIDATE_KINDS
from eqr_core.tasks.base import ConstraintLayout

ALIGNMENT = 64

Weights = tuple[Tensor, Tensor, Tensor]
"""own [inner, hidden], out [hidden, inner], pooled [kinds, inner, 2 · hidden]; float32."""


@dataclass(frozen=True)
class Embedding:
    """Input embedding of a batch, bfloat16: `values` [batch, candidates, hidden].

    With `kinds` [batch, candidates], `values` [embeddings, hidden] is a table that they index.
    """

    values: Tensor
    kinds: Tensor | None = None


class Pointers(ctypes.Structure):
    """`Weights` of shape.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("own", "out", "pooled"))


class Kernels:
    """One cycle of an operator of one task size, and its gradient. Calls may run concurrently."""

    def __init__(
        self, library: ctypes.CDLL, layout: ConstraintLayout, config: OperatorConfig, inner: int
    ) -> None:
        self._library = library
        self._groups = groups = Groups(layout, config.constraint_kinds)
        self._shape = Shape.of(groups, config, inner, config.updates, library.eqr_tiles())
        self._idle: list[Tensor] = []

    def forward(
        self,
        z: Tensor,
        e: Embedding,
        draws: Tensor | None,
        first: int,
        weights: Weights,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """State after the cycle, and with `keep` the inputs of its updates for `backward`.

        In update i row b takes the noise draws[(first + b − i) mod len(draws)]. ModelError where
        a tensor does not fit.
        """
        z = self._checked("state", z)
        draws = None if draws is None else self._checked("noise", draws)
        values = e.values.contiguous() if e.kinds is not None else self._checked("e", e.values)
        kinds = None if e.kinds is None else self._kinds(e.kinds)
        rows = len(values if kinds is None else kinds)
        if rows != len(z) or (draws is not None and not len(draws)):
            raise ModelError(f"{len(z)} states, {rows} embeddings; and noise, if any, is not empty")
        end = torch.empty_like(z)
        inputs = self._inputs(len(z)) if keep else None
        threads = thread_count(len(z))
        workspace = self._workspace(threads, backward=False)
        self._library.eqr_forward(
            ctypes.byref(self._shape),
            ctypes.byref(pointers(weights)),
            ctypes.c_int64(len(z)),
            at(z),
            at(values),
            at(kinds),
            at(draws),
            ctypes.c_int64(0 if draws is None else len(draws)),
            ctypes.c_int64(first),
            at(end),
            at(inputs),
            at(workspace),
            ctypes.c_int64(threads),
        )
        return end, inputs

    def backward(
        self, end: Tensor, kinds: Tensor, inputs: Tensor, weights: Weights, with_state: bool
    ) -> tuple[Tensor | None, Tensor, Weights]:
        """Gradients of the state (where asked for), the table of embeddings and the weights.

        `end` is the gradient of the state after the cycle. `inputs` is used up.
        """
        end, kinds = self._checked("gradient", end), self._kinds(kinds)
        z = torch.empty_like(end) if with_state else None
        table = torch.empty(CANDIDATE_KINDS, self._shape.hidden)
        own, out, pooled = (torch.empty_like(weight) for weight in weights)
        threads = thread_count(len(end))
        workspace = self._workspace(threads, backward=True)
        self._library.eqr_backward(
            ctypes.byref(self._shape),
            ctypes.byref(pointers(weights)),
            ctypes.c_int64(len(end)),
            at(end),
            at(kinds),
            at(inputs),
            at(z),
            at(table),
            at(own),
            at(out),
            at(pooled),
            at(workspace),
            ctypes.c_int64(threads),
        )
        self._idle.append(inputs)
        return z, table, (own, out, pooled)

    def _kinds(self, kinds: Tensor) -> Tensor:
        kinds = kinds.flatten(1).to(torch.uint8)
        if kinds.shape[1] != self._shape.candidates:
            raise ModelError(f"{kinds.shape[1]} candidates; there are {self._shape.candidates}")
        return kinds.contiguous()

    def _checked(self, name: str, rows: Tensor) -> Tensor:
        size = self._shape.candidates * self._shape.hidden
        if rows.dtype != torch.bfloat16 or rows.device.type != "cpu":
            raise ModelError(f"{name} is {rows.dtype} on {rows.device}; it must be bfloat16 on cpu")
        if rows.ndim < 2 or rows[0:1].numel() not in (0, size):
            raise ModelError(f"{name} has shape {tuple(rows.shape)}; a row must hold {size} values")
        return rows.contiguous()

    def _inputs(self, rows: int) -> Tensor:
        """Room for the inputs of a cycle's updates; used again, as fresh pages are dear."""
        shape = (rows, self._shape.updates, self._shape.padded, self._shape.hidden)
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                if (idle := self._idle.pop()).shape == shape:
                    return idle
        return torch.empty(shape, dtype=torch.bfloat16)

    def _workspace(self, threads: int, backward: bool) -> Tensor:
        size = self._library.eqr_workspace(
            ctypes.byref(self._shape), ctypes.c_int64(threads), ctypes.c_int64(backward)
        )
        return aligned(size)


def aligned(size: int) -> Tensor:
    """Room for `size` bytes at an address that is a multiple of 64."""
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
    return room[-room.data_ptr() % ALIGNMENT :]


def plain(weights: Sequence[Tensor]) -> Weights:
    """Weights as the kernels read them."""
    own, out, pooled = (weight.detach().float().contiguous() for weight in weights)
    return own, out, pooled


def pointers(weights: Weights) -> Pointers:
    """`Weights` of shape.h; they must outlive it."""
    return Pointers(*(weight.data_ptr() for weight in weights))


def thread_count(rows: int) -> int:
    """Threads that share `rows` out."""
    return max(1, min(torch.get_num_threads(), rows))


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where its values start; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

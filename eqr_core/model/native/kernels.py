"""The C functions of units.cpp and grid.cpp, called with tensors."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.native.layout import GridLayout, UnitsLayout

ALIGNMENT = 64

Weights = tuple[Tensor, ...]
"""float32, dense. `units`: own [inner, hidden], out [hidden, inner], pooled [kinds, inner,
2 · hidden]. `grid`: near [blocks, inner, 9 · hidden], out [blocks, hidden, inner]."""


@dataclass(frozen=True)
class Embedding:
    """Input embedding of a batch, bfloat16: `values` [batch, places, hidden].

    With `kinds` [batch, places], `values` [embeddings, hidden] is a table that they index.
    """

    values: Tensor
    kinds: Tensor | None = None


class Kernels:
    """One cycle of an operator of one task size, and its gradient. Calls may run concurrently."""

    def __init__(self, library: ctypes.CDLL, layout: UnitsLayout | GridLayout) -> None:
        self._layout = layout
        self._shape = ctypes.byref(layout.shape)
        self._forward, self._backward, self._room, kept = (
            getattr(library, f"eqr_{layout.mixer}_{name}")
            for name in ("forward", "backward", "workspace", "kept")
        )
        self._kept: int = kept(self._shape)
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
        self._forward(
            self._shape,
            pointers(weights),
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
        table = torch.empty(self._layout.embeddings, self._layout.hidden)
        gradients = tuple(torch.empty_like(weight) for weight in weights)
        threads = thread_count(len(end))
        workspace = self._workspace(threads, backward=True)
        self._backward(
            self._shape,
            pointers(weights),
            ctypes.c_int64(len(end)),
            at(end),
            at(kinds),
            at(inputs),
            at(z),
            at(table),
            pointers(gradients),
            at(workspace),
            ctypes.c_int64(threads),
        )
        self._idle.append(inputs)
        return z, table, gradients

    def _kinds(self, kinds: Tensor) -> Tensor:
        kinds = kinds.flatten(1)
        if (
            kinds.numel()
            and not 0 <= int(kinds.min()) <= int(kinds.max()) < self._layout.embeddings
        ):
            raise ModelError(f"a kind is not one of 0 to {self._layout.embeddings - 1}")
        kinds = kinds.to(torch.uint8)
        if kinds.shape[1] != self._layout.places:
            raise ModelError(f"{kinds.shape[1]} kinds; there are {self._layout.places} places")
        return kinds.contiguous()

    def _checked(self, name: str, rows: Tensor) -> Tensor:
        size = self._layout.places * self._layout.hidden
        if rows.dtype != torch.bfloat16 or rows.device.type != "cpu":
            raise ModelError(f"{name} is {rows.dtype} on {rows.device}; it must be bfloat16 on cpu")
        if rows.ndim < 2 or rows[0:1].numel() not in (0, size):
            raise ModelError(f"{name} has shape {tuple(rows.shape)}; a row must hold {size} values")
        return rows.contiguous()

    def _inputs(self, rows: int) -> Tensor:
        """Room for the inputs of a cycle's updates; used again, as fresh pages are dear."""
        shape = (rows, self._kept)
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                if (idle := self._idle.pop()).shape == shape:
                    return idle
        return torch.empty(shape, dtype=torch.bfloat16)

    def _workspace(self, threads: int, backward: bool) -> Tensor:
        return aligned(self._room(self._shape, ctypes.c_int64(threads), ctypes.c_int64(backward)))


def aligned(size: int) -> Tensor:
    """Room for `size` bytes at an address that is a multiple of 64."""
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
    return room[-room.data_ptr() % ALIGNMENT :]


def plain(weights: Sequence[Tensor]) -> Weights:
    """Weights as the kernels read them."""
    return tuple(weight.detach().float().contiguous() for weight in weights)


def pointers(weights: Weights) -> ctypes.Array[ctypes.c_void_p]:
    """The `Weights` of a mixer in C; they must outlive it."""
    return (ctypes.c_void_p * len(weights))(*(weight.data_ptr() for weight in weights))


def thread_count(rows: int) -> int:
    """Threads that share `rows` out."""
    return max(1, min(torch.get_num_threads(), rows))


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where its values start; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

"""The C functions of units.cpp, called with tensors."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.native.layout import Groups, Shape, padded
from eqr_core.tasks.base import ConstraintLayout

ALIGNMENT = 64

Weights = tuple[Tensor, Tensor, Tensor]
"""own [inner, hidden], out [hidden, inner], pooled [kinds, inner, 2 · hidden]; float32."""


class _Pointers(ctypes.Structure):
    """`Weights` of shape.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("own", "out", "pooled"))


class Kernels:
    """One cycle of an operator of one task size, and its gradient. Calls may run concurrently."""

    def __init__(
        self, library: ctypes.CDLL, layout: ConstraintLayout, config: OperatorConfig, inner: int
    ) -> None:
        self._library = library
        self._groups = groups = Groups(layout, config.constraint_kinds)
        self._shape = Shape(
            candidates=groups.candidates,
            padded=padded(groups.candidates),
            hidden=config.hidden,
            inner=inner,
            families=len(layout.families),
            kinds=config.constraint_kinds,
            groups=groups.count,
            updates=config.updates,
            group=groups.group.data_ptr(),
            start=groups.start.data_ptr(),
            member=groups.member.data_ptr(),
            kind=groups.kind.data_ptr(),
            damping=config.damping,
            amx=library.eqr_tiles(),
        )
        self._idle: list[Tensor] = []

    def forward(
        self, z: Tensor, e: Tensor, draws: Tensor | None, first: int, weights: Weights, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """State after the cycle, and with `keep` the inputs of its updates for `backward`.

        ModelError where a tensor does not fit.
        """
        z, e = self._checked("state", z), self._checked("embedding", e)
        draws = None if draws is None else self._checked("noise", draws)
        if len(e) != len(z) or (draws is not None and not len(draws)):
            raise ModelError(
                f"{len(z)} states, {len(e)} embeddings; and noise, if any, is not empty"
            )
        weights = _plain(weights)
        end = torch.empty_like(z)
        inputs = self._inputs(len(z)) if keep else None
        threads = _threads(len(z))
        workspace = self._workspace(threads, backward=False)
        self._library.eqr_forward(
            ctypes.byref(self._shape),
            ctypes.byref(_Pointers(*(weight.data_ptr() for weight in weights))),
            ctypes.c_int64(len(z)),
            _at(z),
            _at(e),
            _at(draws),
            ctypes.c_int64(0 if draws is None else len(draws)),
            ctypes.c_int64(first),
            _at(end),
            _at(inputs),
            _at(workspace),
            ctypes.c_int64(threads),
        )
        return end, inputs

    def backward(
        self, end: Tensor, inputs: Tensor, weights: Weights, with_state: bool
    ) -> tuple[Tensor | None, Tensor, Weights]:
        """Gradients of the state (where asked for), the embedding and the weights.

        `end` is the gradient of the state after the cycle. `inputs` is used up.
        """
        end, weights = self._checked("gradient", end), _plain(weights)
        z = torch.empty_like(end) if with_state else None
        e = torch.empty_like(end)
        own, out, pooled = (torch.empty_like(weight) for weight in weights)
        threads = _threads(len(end))
        workspace = self._workspace(threads, backward=True)
        self._library.eqr_backward(
            ctypes.byref(self._shape),
            ctypes.byref(_Pointers(*(weight.data_ptr() for weight in weights))),
            ctypes.c_int64(len(end)),
            _at(end),
            _at(inputs),
            _at(z),
            _at(e),
            _at(own),
            _at(out),
            _at(pooled),
            _at(workspace),
            ctypes.c_int64(threads),
        )
        self._idle.append(inputs)
        return z, e, (own, out, pooled)

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
        while self._idle:
            if (idle := self._idle.pop()).shape == shape:
                return idle
        return torch.empty(shape, dtype=torch.bfloat16)

    def _workspace(self, threads: int, backward: bool) -> Tensor:
        size = self._library.eqr_workspace(
            ctypes.byref(self._shape), ctypes.c_int64(threads), ctypes.c_int64(backward)
        )
        room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
        return room[-room.data_ptr() % ALIGNMENT :]


def _plain(weights: Weights) -> Weights:
    own, out, pooled = (weight.detach().float().contiguous() for weight in weights)
    return own, out, pooled


def _threads(rows: int) -> int:
    return max(1, min(torch.get_num_threads(), rows))


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

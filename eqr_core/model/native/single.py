"""Outer steps of a `units` or `grid` operator in native code and in float32, for inference."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.native.build import library
from eqr_core.model.native.kernels import aligned, at, plain, pointers, thread_count
from eqr_core.model.native.layout import GridLayout, UnitsLayout, operator_layout
from eqr_core.model.native.step import block_weights, fits
from eqr_core.model.operator import Operator


def single_step(operator: Operator) -> SingleStep | None:
    """The operator's outer step in native code; None where `operator.outer_step` must do."""
    if operator.embedding.device.type != "cpu" or not fits(operator.config):
        return None
    loaded, updates = library(), operator.config.cycles * operator.config.updates
    if loaded is None:
        return None
    layout = operator_layout(operator, updates, loaded.eqr_tiles())
    return SingleStep(loaded, operator, layout) if layout else None


def single_arithmetic(config: OperatorConfig) -> str | None:
    """What rounds the results of such an operator's `SingleStep`; None where there is none.

    On processors with the same name for it the results are the same, bit for bit.
    """
    loaded = library() if fits(config) else None
    if loaded is None:
        return None
    name: bytes = loaded.eqr_single_name(ctypes.c_int64(loaded.eqr_tiles()))
    return name.decode()


class _ReadOut(ctypes.Structure):
    """`ReadOut` of passes.h."""

    _fields_ = (
        ("head", ctypes.c_void_p),
        ("values", ctypes.c_int64),
        ("offset", ctypes.c_int64),
    )


class SingleStep:
    """Outer steps in float32 of rows of a pool, in place, with the weights of now.

    A row's result depends on nothing but the row and the processor. Not for concurrent calls.
    """

    def __init__(
        self, library: ctypes.CDLL, operator: Operator, layout: UnitsLayout | GridLayout
    ) -> None:
        config = operator.config
        self.updates = config.cycles * config.updates
        self._state_shape = operator.state_shape
        self._cells = operator.task.tokens
        self._layout = layout
        self._shape = ctypes.byref(layout.shape)
        self._step, self._workspace, packed, pack = (
            getattr(library, f"eqr_{layout.mixer}_single_{name}")
            for name in ("step", "workspace", "packed", "pack")
        )
        self._head = operator.head.weight.detach().float().flatten().clone()
        # `units` scores each value's candidate with one row; `grid` has a row for each value.
        values = operator.logit_count
        self._read = _ReadOut(self._head.data_ptr(), values, operator.answer_offset)
        weights = plain(block_weights(list(operator.blocks)))
        self._packed = aligned(packed(self._shape))
        pack(self._shape, pointers(weights), at(self._packed))
        self._rooms: dict[int, Tensor] = {}

    def __call__(
        self, state: Tensor, e: Tensor, rows: Sequence[int], noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Step the rows `rows` of the pool `state` with the embeddings `e`, in place.

        `state` and `e` are float32 [any, *state_shape], `rows` different from each other, `noise`
        [len(rows), updates, *state_shape], already scaled. Returns the residuals, float32
        [len(rows)], and the answer tokens, uint8 [len(rows), tokens]. ModelError where a tensor
        does not fit.
        """
        count = len(rows)
        if len(set(rows)) != count or (count and not 0 <= min(rows) <= max(rows) < len(state)):
            raise ModelError(f"rows are {list(rows)}; each of 0 to {len(state) - 1}, once at most")
        self._check("state", state, (len(state), *self._state_shape))
        self._check("e", e, (len(state), *self._state_shape))
        if noise is not None:
            self._check("noise", noise, (count, self.updates, *self._state_shape))
        residual = torch.empty(count)
        tokens = torch.empty(count, self._cells, dtype=torch.uint8)
        if count:
            threads = thread_count(count)
            self._step(
                self._shape,
                at(self._packed),
                ctypes.byref(self._read),
                ctypes.c_int64(count),
                (ctypes.c_int64 * count)(*rows),
                at(state),
                at(e),
                at(noise),
                at(residual),
                at(tokens),
                at(self._room(threads)),
                ctypes.c_int64(threads),
            )
        return residual, tokens

    def _check(self, name: str, values: Tensor, shape: tuple[int, ...]) -> None:
        if values.dtype != torch.float32 or values.device.type != "cpu":
            raise ModelError(f"{name} is {values.dtype} on {values.device}; not float32 on cpu")
        if tuple(values.shape) != shape or not values.is_contiguous():
            raise ModelError(f"{name} has shape {tuple(values.shape)}; it must be {shape}, dense")

    def _room(self, threads: int) -> Tensor:
        """What so many threads work in; kept, as fresh pages are dear.

        Zeros, because nothing else is where the kernels see no cell, and because what they compute
        for padding costs time where it is denormal.
        """
        if threads not in self._rooms:
            size = self._workspace(self._shape, ctypes.c_int64(threads))
            self._rooms = {threads: aligned(size).zero_()}
        return self._rooms[threads]

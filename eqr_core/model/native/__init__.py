"""Native CPU code for outer steps of the `units` and `grid` mixers; see docs/performance.md."""

from eqr_core.model.native.single import SingleStep, single_arithmetic, single_step
from eqr_core.model.native.step import NativeStep, native_step, supports

__all__ = [
    "NativeStep",
    "SingleStep",
    "native_step",
    "single_arithmetic",
    "single_step",
    "supports",
]

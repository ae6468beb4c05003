"""Native CPU code for outer steps of the `units` mixer; see docs/performance.md."""

from eqr_core.model.native.step import NativeStep, native_step, supports

__all__ = ["NativeStep", "native_step", "supports"]

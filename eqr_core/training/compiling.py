"""Compilation of what a run repeats, where the machine can compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from eqr_core.model.native.build import find_compiler

Given = ParamSpec("Given")
Result = TypeVar("Result")


def can_compile() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return find_compiler() is not None


def maybe_compiled(function: Callable[Given, Result], compiled: bool) -> Callable[Given, Result]:
    """`function` compiled for the shapes it is called with, or as it is."""
    return torch.compile(function, dynamic=False) if compiled else function

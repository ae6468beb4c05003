"""REST clients, sync and async: the same requests, read the same way."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.client.errors import (
    AnswerUnreadable,
    ConnectionFailed,
    RequestUnsendable,
    service_error,
)
from service.schemas import ModelAnswer, ModelsAnswer, ProblemDocument, SolveAnswer

DEFAULT_TIMEOUT = httpx.Timeout(None, connect=5.0)
"""A solve may take as long as its deadline, which the service keeps."""

JSON_HEADERS = {"Content-Type": "application/json"}

Body = TypeVar("Body", bound=BaseModel)


def solve_body(
    grid: Any,
    *,
    task: str | None = None,
    model: str | None = None,
    budget: dict[str, Any] | None = None,
    seed: int | None = None,
    noise: float | None = None,
    selection: Literal["residual", "majority"] | None = None,
    priority: int | None = None,
    include: list[str] | None = None,
) -> dict[str, Any]:
    """The body of ``POST /solve``; what is None is left to the service."""
    fields = {
        "grid": grid,
        "task": task,
        "model": model,
        "budget": budget,
        "seed": seed,
        "noise": noise,
        "selection": selection,
        "priority": priority,
        "include": include,
    }
    return {name: value for name, value in fields.items() if value is not None}


class EqrClient:
    """Blocking client. Methods raise the errors of `service.client.errors`.

    `transport` is httpx's; it serves to speak to an application in the same process.
    """

    def __init__(
        self,
        server: str,
        *,
        timeout: httpx.Timeout = DEFAULT_TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=_address(server), timeout=timeout, transport=transport)

    def solve(self, grid: Any, **options: Any) -> SolveAnswer:
        """Solve one grid; `options` are those of `solve_body`."""
        return self._send("POST", "/solve", SolveAnswer, solve_body(grid, **options))

    def models(self) -> list[ModelAnswer]:
        """The models that are served."""
        return self._send("GET", "/models", ModelsAnswer).models

    def model(self, name: str) -> ModelAnswer:
        """One model by its name."""
        return self._send("GET", _model_path(name), ModelAnswer)

    def _send(self, method: str, path: str, kind: type[Body], body: Any = None) -> Body:
        try:
            response = self._http.request(
                method, path, content=_json(body), headers=JSON_HEADERS if body else None
            )
        except httpx.HTTPError as error:
            raise _connection_failed(self._http.base_url, error) from None
        return _read(response, kind)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncEqrClient:
    """The same for asyncio. A cancelled call closes its connection, which ends the solve."""

    def __init__(
        self,
        server: str,
        *,
        timeout: httpx.Timeout = DEFAULT_TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=_address(server), timeout=timeout, transport=transport
        )

    async def solve(self, grid: Any, **options: Any) -> SolveAnswer:
        """Solve one grid; `options` are those of `solve_body`."""
        return await self._send("POST", "/solve", SolveAnswer, solve_body(grid, **options))

    async def models(self) -> list[ModelAnswer]:
        """The models that are served."""
        return (await self._send("GET", "/models", ModelsAnswer)).models

    async def model(self, name: str) -> ModelAnswer:
        """One model by its name."""
        return await self._send("GET", _model_path(name), ModelAnswer)

    async def _send(self, method: str, path: str, kind: type[Body], body: Any = None) -> Body:
        try:
            response = await self._http.request(
                method, path, content=_json(body), headers=JSON_HEADERS if body else None
            )
        except httpx.HTTPError as error:
            raise _connection_failed(self._http.base_url, error) from None
        return _read(response, kind)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _model_path(name: str) -> str:
    return f"/models/{quote(name, safe='')}"


def _address(server: str) -> httpx.URL:
    try:
        return httpx.URL(server if "://" in server else f"http://{server}")
    except (httpx.InvalidURL, ValueError) as error:
        raise RequestUnsendable(f"server {server[:200]!r} is no address: {error}") from None


def _json(body: dict[str, Any] | None) -> bytes | None:
    if body is None:
        return None
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RequestUnsendable(f"the body cannot be sent as JSON: {error}") from None


def _connection_failed(server: httpx.URL, error: httpx.HTTPError) -> ConnectionFailed:
    return ConnectionFailed(f"{server}: {str(error) or type(error).__name__}")


def _read(response: httpx.Response, kind: type[Body]) -> Body:
    try:
        if response.is_success:
            return kind.model_validate_json(response.content)
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        raise AnswerUnreadable(
            f"{response.url}: status {response.status_code}, but neither an answer nor a problem "
            "document of this service"
        ) from None
    raise service_error(problem, response.headers.get("retry-after"))

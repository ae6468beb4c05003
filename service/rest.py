"""REST: the routes, and nothing else. What they do is the gateway's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from service import sse
from service.gate import Gate, problem_response
from service.gateway import Gateway
from service.metrics import MEDIA_TYPE as METRICS_MEDIA_TYPE
from service.metrics import Collected, IngressMetrics, exposition
from service.orders import order_of
from service.problems import MEDIA_TYPE, TITLES, Refusal, refusal_of
from service.schemas import (
    HealthAnswer,
    ModelAnswer,
    ModelsAnswer,
    ProblemDocument,
    SolveAnswer,
    SolveBody,
)
from service.settings import Settings

API_VERSION = "1"
PROBLEM_REF = "#/components/schemas/{model}"

CollectAll = Callable[[], Awaitable[list[tuple[str, Collected]]]]


def build_api(
    gateway: Gateway, settings: Settings, metrics: IngressMetrics, collect_all: CollectAll
) -> FastAPI:
    """The FastAPI application over `gateway`; `collect_all` gives every replica's metrics."""
    api = FastAPI(
        title="Equilibrium Reasoner",
        summary="Puzzles solved as fixed points of a learned operator.",
        version=API_VERSION,
        responses=_problems(500),
        redoc_url=None,
    )
    api.add_middleware(Gate, max_body_bytes=settings.max_body_bytes, on_reject=metrics.reject)

    async def answer_problem(request: Request, error: Exception) -> Response:
        refusal = refusal_of(error)
        if refusal is None:
            raise error
        metrics.reject(refusal.code)
        return problem_response(refusal, request.state.request_id)

    for kind in (RequestValidationError, HTTPException, Refusal):
        api.add_exception_handler(kind, answer_problem)

    @api.post(
        "/solve",
        summary="Solve one puzzle",
        responses=_problems(400, 404, 413, 415, 422, 429, 503, 504),
        dependencies=[Depends(_require_json)],
    )
    async def solve(body: SolveBody) -> SolveAnswer:
        return await gateway.solve(order_of(body, settings.deadline_ms))

    @api.post(
        "/solve/stream",
        summary="Solve one puzzle and follow it",
        description="Server-sent events: `progress` any number of times, then `result` or `error`.",
        response_class=StreamingResponse,
        responses={
            200: {"content": {sse.MEDIA_TYPE: {}}, "description": "The events"},
            **_problems(400, 404, 413, 415, 422, 429, 503, 504),
        },
        dependencies=[Depends(_require_json)],
    )
    async def solve_stream(body: SolveBody, request: Request) -> StreamingResponse:
        events = gateway.stream(order_of(body, settings.deadline_ms))
        stream = sse.EventStream(events, request.state.request_id, metrics.reject)
        await stream.open()
        return StreamingResponse(stream.body(), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    @api.get("/models", summary="Models that are served", responses=_problems(503))
    async def models() -> ModelsAnswer:
        return ModelsAnswer(models=await gateway.models())

    @api.get("/models/{name}", summary="One model", responses=_problems(404, 503))
    async def model(name: str) -> ModelAnswer:
        return await gateway.model(name)

    @api.get("/health/live", summary="Whether the ingress runs")
    async def live() -> HealthAnswer:
        return HealthAnswer(status="live")

    @api.get(
        "/health/ready",
        summary="Whether a solver that has solved its warm-up takes work",
        responses=_problems(503),
    )
    async def ready() -> HealthAnswer:
        await gateway.check_ready()
        return HealthAnswer(status="ready")

    @api.get(
        "/metrics",
        summary="Prometheus metrics of every replica",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_problems(503)},
    )
    async def all_metrics() -> Response:
        return Response(exposition(await collect_all()), media_type=METRICS_MEDIA_TYPE)

    @api.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/docs")

    _describe_problems(api)
    return api


def _describe_problems(api: FastAPI) -> None:
    """Add to the OpenAPI document the schemas that `_problems` refers to."""
    build = api.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        _, schema = models_json_schema(
            [(ProblemDocument, "serialization")], ref_template=PROBLEM_REF
        )
        document["components"]["schemas"].update(schema["$defs"])
        return document

    api.openapi = openapi  # type: ignore[method-assign]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entries for problem documents, each naming the codes of its status."""
    reference = {"$ref": PROBLEM_REF.format(model=ProblemDocument.__name__)}
    entries: dict[int | str, dict[str, Any]] = {
        "default": {
            "description": "any other problem",
            "content": {MEDIA_TYPE: {"schema": reference}},
        }
    }
    for status in statuses:
        codes = [f"`{code}`" for code, (its, _) in TITLES.items() if its.value == status]
        entries[status] = {**entries["default"], "description": ", ".join(codes)}
    return entries


def _require_json(request: Request) -> None:
    """Also keeps web pages of other origins from posting here without a preflight."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        shown = given[:100] or "none"
        raise Refusal(
            "unsupported_media_type", f"Content-Type is {shown}; it must be application/json"
        )

"""REST: the routes, and nothing else. What they do is the gateway's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from service import playground, sse
from service.desk import Desk
from service.gate import REQUEST_ID, Gate, problem_response
from service.idempotency import HEADER, REPLAYED, IdempotencyGate
from service.metrics import MEDIA_TYPE as METRICS_MEDIA_TYPE
from service.metrics import Collected, IngressMetrics, exposition
from service.openapi import describe_problems, problems, require_json
from service.problems import Refusal, refusal_of
from service.rest_jobs import job_routes
from service.schemas import HealthAnswer, ModelAnswer, ModelsAnswer, SolveAnswer, SolveBody
from service.security import Guard
from service.settings import Settings

API_VERSION = "1"

CollectAll = Callable[[], Awaitable[list[tuple[str, Collected]]]]


def build_api(
    desk: Desk, settings: Settings, metrics: IngressMetrics, collect_all: CollectAll
) -> FastAPI:
    """The FastAPI application over `desk`, which lives as long as it does.

    `collect_all` gives every replica's metrics.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await desk.start()
        yield
        await desk.stop()

    api = FastAPI(
        title="Equilibrium Reasoner",
        summary="Puzzles solved as fixed points of a learned operator.",
        version=API_VERSION,
        responses=problems(500),
        redoc_url=None,
        lifespan=lifespan,
    )
    # The last one is the outermost.
    api.add_middleware(IdempotencyGate, idempotency=desk.idempotency)
    api.add_middleware(Guard, keys=desk.keys)
    api.add_middleware(Gate, max_body_bytes=settings.max_body_bytes, on_reject=metrics.reject)
    if settings.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", HEADER, REQUEST_ID],
            expose_headers=["Location", "Retry-After", REPLAYED, REQUEST_ID],
        )

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
        responses=problems(400, 401, 404, 409, 413, 415, 422, 429, 503, 504),
        dependencies=[Depends(require_json)],
    )
    async def solve(body: SolveBody, request: Request) -> SolveAnswer:
        return await desk.gateway.solve(await desk.order(body, request.state.owner))

    @api.post(
        "/solve/stream",
        summary="Solve one puzzle and follow it",
        description="Server-sent events: `progress` any number of times, then `result` or `error`.",
        response_class=StreamingResponse,
        responses={
            200: {"content": {sse.MEDIA_TYPE: {}}, "description": "The events"},
            **problems(400, 401, 404, 409, 413, 415, 422, 429, 503, 504),
        },
        dependencies=[Depends(require_json)],
    )
    async def solve_stream(body: SolveBody, request: Request) -> StreamingResponse:
        events = desk.gateway.stream(await desk.order(body, request.state.owner))
        stream = sse.EventStream(events, request.state.request_id, metrics.reject)
        await stream.open()
        return StreamingResponse(stream.body(), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    api.include_router(job_routes(desk, settings))

    @api.get("/models", summary="Models that are served", responses=problems(401, 503))
    async def models() -> ModelsAnswer:
        return ModelsAnswer(models=await desk.gateway.models())

    @api.get("/models/{name}", summary="One model", responses=problems(401, 404, 503))
    async def model(name: str) -> ModelAnswer:
        return await desk.gateway.model(name)

    @api.get("/health/live", summary="Whether the ingress runs")
    async def live() -> HealthAnswer:
        return HealthAnswer(status="live")

    @api.get(
        "/health/ready",
        summary="Whether a solver that has solved its warm-up takes work",
        responses=problems(503),
    )
    async def ready() -> HealthAnswer:
        await desk.gateway.check_ready()
        return HealthAnswer(status="ready")

    @api.get(
        "/metrics",
        summary="Prometheus metrics of every replica",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **problems(503)},
    )
    async def all_metrics() -> Response:
        return Response(exposition(await collect_all()), media_type=METRICS_MEDIA_TYPE)

    @api.get("/", include_in_schema=False)
    async def home() -> FileResponse:
        return playground.page()

    api.mount(playground.PATH, playground.PlaygroundFiles())

    describe_problems(api)
    return api

"""REST: the routes of batches and jobs. What they do is the desk's."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, RootModel

from service.batch import REQUESTS, items_of
from service.desk import Desk
from service.openapi import problems, require_json
from service.schemas import EXAMPLE_GRID, BatchAnswer, JobAnswer
from service.settings import Settings

_SOLVE: Any = {"$ref": "#/components/schemas/SolveBody"}
_LIST: Any = {"type": "array", "items": _SOLVE, "minItems": 1}
_OBJECT: Any = {
    "type": "object",
    "properties": {REQUESTS: _LIST},
    "required": [REQUESTS],
    "additionalProperties": False,
}


class BatchBody(RootModel[Any]):
    """Body of ``POST /solve/batch``: its items are checked one by one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [_LIST, _OBJECT],
            "examples": [{REQUESTS: [{"grid": EXAMPLE_GRID}]}],
        }
    )


class JobBody(RootModel[Any]):
    """Body of ``POST /jobs``: several solves, or one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [_LIST, _OBJECT, _SOLVE],
            "examples": [{REQUESTS: [{"grid": EXAMPLE_GRID}]}],
        }
    )


def job_routes(desk: Desk, settings: Settings) -> APIRouter:
    """The routes over `desk`."""
    routes = APIRouter()
    takes_json = [Depends(require_json)]

    @routes.post(
        "/solve/batch",
        summary="Solve several puzzles",
        description="Each item ends with an answer or a problem of its own.",
        responses=problems(400, 401, 409, 413, 415, 422, 429, 503),
        dependencies=takes_json,
    )
    async def solve_batch(body: BatchBody, request: Request) -> BatchAnswer:
        items, _ = items_of(body.root, settings.max_batch)
        state = request.state
        return BatchAnswer(results=await desk.solve_batch(items, state.owner, state.request_id))

    @routes.post(
        "/jobs",
        summary="Store a job",
        description="For large budgets and batches. It is on the store's disk before the answer.",
        status_code=202,
        responses=problems(400, 401, 409, 413, 415, 422, 429, 503),
        dependencies=takes_json,
    )
    async def submit(body: JobBody, request: Request, response: Response) -> JobAnswer:
        items, pointer = items_of(body.root, settings.max_batch, or_one=True)
        state = request.state
        job = await desk.submit(items, pointer, state.owner, state.request_id, state.repetition)
        response.headers["Location"] = f"/jobs/{job.id}"
        return job

    @routes.get("/jobs/{name}", summary="A job as it stands", responses=problems(401, 404, 503))
    async def job(name: str, request: Request) -> JobAnswer:
        return await desk.job(name, request.state.owner)

    @routes.delete(
        "/jobs/{name}",
        summary="End a job",
        description="What is solved is kept. A job that has ended stays as it is.",
        responses=problems(401, 404, 503),
    )
    async def cancel(name: str, request: Request) -> JobAnswer:
        return await desk.cancel_job(name, request.state.owner)

    return routes

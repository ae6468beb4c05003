"""What routes share: problem documents in the OpenAPI document, and bodies that must be JSON."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from pydantic.json_schema import models_json_schema

from service.codes import TITLES
from service.problems import MEDIA_TYPE, Refusal
from service.schemas import ProblemDocument

PROBLEM_REF = "#/components/schemas/{model}"


def describe_problems(api: FastAPI) -> None:
    """Add to the OpenAPI document the schemas that `problems` refers to."""
    build = api.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        _, schema = models_json_schema(
            [(ProblemDocument, "serialization")], ref_template=PROBLEM_REF
        )
        document["components"]["schemas"].update(schema["$defs"])
        return document

    api.openapi = openapi  # type: ignore[method-assign]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
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


async def require_json(request: Request) -> None:
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

"""Server-sent events from the real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.schemas import ProblemDocument, ProgressAnswer, SolveAnswer
from tests.e2e.conftest import HTTP, eventually, samples

FOUR = "1...4...2..3...."
NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
LONG = {"depth": 4096, "breadth": 1024, "stop": "exhausted", "deadline_ms": 3_600_000}


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Name and data of each event."""
    name = ""
    for line in response.iter_lines():
        kind, _, value = line.partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            yield name, json.loads(value)


def test_progress_and_then_the_result(server_url: str) -> None:
    body = {"grid": NINE, "budget": {**LONG, "deadline_ms": 3000}}
    with HTTP.stream("POST", f"{server_url}/solve/stream", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-request-id"]
        *told, (last, result) = events(response)
    assert last == "result"
    assert SolveAnswer.model_validate(result).finish_reason == "deadline"
    assert len(told) > 3
    assert len(told) <= 3 * 10 + 1
    for name, data in told:
        assert name == "progress"
        assert len(ProgressAnswer.model_validate(data).text) == 81


def test_a_stream_ends_in_the_answer_of_a_solve(server_url: str) -> None:
    body = {"grid": FOUR, "model": "other", "seed": 3, "budget": {"depth": 6, "breadth": 2}}
    with HTTP.stream("POST", f"{server_url}/solve/stream", json=body) as response:
        *_, (_, streamed) = events(response)
    solved = HTTP.post(f"{server_url}/solve", json=body).json()
    for name in ("text", "residual", "nfe", "iterations", "finish_reason", "breadth"):
        assert streamed[name] == solved[name]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"grid": "1"}, 422, "invalid_grid"),
        ({"grid": FOUR, "model": "nobody"}, 404, "unknown_model"),
        ({"grid": FOUR, "budget": {"depth": 0}}, 422, "invalid_budget"),
    ],
)
def test_a_refusal_has_its_own_status(
    server_url: str, body: dict[str, Any], status: int, code: str
) -> None:
    response = HTTP.post(f"{server_url}/solve/stream", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert ProblemDocument.model_validate_json(response.content).code == code


def test_a_reader_that_goes_away_frees_its_slots(server_url: str) -> None:
    before = samples(server_url)
    body = {"grid": NINE, "budget": LONG}
    with HTTP.stream("POST", f"{server_url}/solve/stream", json=body) as response:
        told = events(response)  # held: without it the response would be closed
        assert next(told)[0] == "progress"
        assert samples(server_url)["eqr_slots_busy"] > 0
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)
    cancelled = [name for name in samples(server_url) if "finish_reason=cancelled" in name]
    after = samples(server_url)
    assert sum(after[name] - before.get(name, 0.0) for name in cancelled) == 1

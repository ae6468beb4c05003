"""Every bad input over HTTP: a problem document with a stable code, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from service.schemas import ProblemDocument
from tests.e2e.conftest import HTTP

FOUR = "1...4...2..3...."
NAN, INF = float("nan"), float("inf")
VAST = {"depth": 4096, "breadth": 1024}


def problem(response: httpx.Response, status: int, code: str) -> ProblemDocument:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    document = ProblemDocument.model_validate_json(response.content)
    assert (document.status, document.code) == (status, code)
    assert document.type == f"urn:eqr:problem:{code}"
    assert document.title
    assert document.detail
    assert response.headers["x-request-id"] == document.request_id
    return document


def deep(levels: int) -> list[Any]:
    """A list within a list, so many levels."""
    return [deep(levels - 1)] if levels else []


def post(url: str, content: bytes | str, kind: str = "application/json") -> httpx.Response:
    return HTTP.post(f"{url}/solve", content=content, headers={"Content-Type": kind})


def refused(url: str, body: Any, status: int, code: str) -> ProblemDocument:
    return problem(post(url, json.dumps(body)), status, code)


@pytest.mark.parametrize(
    ("grid", "place", "word"),
    [
        ("1" * 7, None, "7"),
        ([[0] * 5] * 5, None, "5"),
        ([[0, 0, 0, 0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], "row 2", "3"),
        ([[0, 0, 0, 0], [0, 0, 5, 0], [0] * 4, [0] * 4], "row 2, column 3", "5"),
        ([[0, 0, 0, 0], [0, 0, -1, 0], [0] * 4, [0] * 4], "row 2, column 3", "-1"),
        ([[0, 0, 0, 0], [0, 0, 1.5, 0], [0] * 4, [0] * 4], "row 2, column 3", "1.5"),
        ([[0, 0, 0, 0], [0, 0, NAN, 0], [0] * 4, [0] * 4], "row 2, column 3", "nan"),
        ([[0, 0, 0, 0], [0, 0, -INF, 0], [0] * 4, [0] * 4], "row 2, column 3", "-inf"),
        ([[0, 0, 0, 0], [0, 0, True, 0], [0] * 4, [0] * 4], "row 2, column 3", "True"),
        ([[0, 0, 0, 0], [0, 0, None, 0], [0] * 4, [0] * 4], "row 2, column 3", "None"),
        ("x" + "." * 15, "row 1, column 1", "x"),
        ("1..1" + "." * 12, "row 1", "1 stands"),
        ("1..." + "...." + "1..." + "....", "column 1", "1 stands"),
        ("1..." + ".1.." + "........", "box 1", "1 stands"),
        ("1" * 16, "row 1", "1 stands"),
        ("1234" + "3412" + "2143" + "4312", "column 4", "2 stands"),
        (NAN, None, "nan"),
        (deep(40), None, "1 rows"),
        ([deep(40), *[[0] * 4] * 3], "row 1", ""),
        (None, None, ""),
        (17, None, ""),
        ({}, None, ""),
        ([], None, ""),
        ([[[0], 0, 0, 0], [0] * 4, [0] * 4, [0] * 4], "row 1, column 1", ""),
        ("." * 5000, None, "5000"),
    ],
)
def test_an_impossible_grid_is_refused_with_its_place(
    server_url: str, grid: Any, place: str | None, word: str
) -> None:
    document = refused(server_url, {"grid": grid}, 422, "invalid_grid")
    assert document.errors
    assert {error.pointer for error in document.errors} == {"#/grid"}
    if place is not None:
        assert place in [error.place for error in document.errors]
    assert any(word in error.message for error in document.errors), document.errors


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": -1}, "depth"),
        ({"depth": 10**9}, "depth"),
        ({"depth": 10**40}, "depth"),
        ({"depth": True}, "depth"),
        ({"depth": 4.0}, "depth"),
        ({"depth": "4"}, "depth"),
        ({"depth": None}, "depth"),
        ({"breadth": 0}, "breadth"),
        ({"breadth": 10**6}, "breadth"),
        ({"nfe": 0}, "nfe"),
        ({"nfe": -5}, "nfe"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": -1.0}, "deadline_ms"),
        ({"deadline_ms": 1e300}, "deadline_ms"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"tolerance": float("inf")}, "tolerance"),
        ({"tolerance": 0}, "tolerance"),
        ({"stop": "never"}, "stop"),
        ({"width": 3}, "width"),
    ],
)
def test_a_budget_outside_its_limits_is_refused(
    server_url: str, budget: dict[str, Any], field: str
) -> None:
    document = refused(server_url, {"grid": FOUR, "budget": budget}, 422, "invalid_budget")
    assert document.errors
    assert [error.pointer for error in document.errors] == [f"#/budget/{field}"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/grid"),
        ({"grid": FOUR, "gird": FOUR}, "#/gird"),
        ({"grid": FOUR, "task": "chess"}, "#/task"),
        ({"grid": FOUR, "task": 5}, "#/task"),
        ({"grid": FOUR, "seed": -1}, "#/seed"),
        ({"grid": FOUR, "seed": 2**64}, "#/seed"),
        ({"grid": FOUR, "seed": True}, "#/seed"),
        ({"grid": FOUR, "noise": -0.1}, "#/noise"),
        ({"grid": FOUR, "noise": float("nan")}, "#/noise"),
        ({"grid": FOUR, "priority": 10**6}, "#/priority"),
        ({"grid": FOUR, "selection": "best"}, "#/selection"),
        ({"grid": FOUR, "include": ["everything"]}, "#/include/0"),
        ({"grid": FOUR, "include": "history"}, "#/include"),
        ({"grid": FOUR, "budget": None}, "#/budget"),
        ({"grid": FOUR, "model": ""}, "#/model"),
        ({"grid": FOUR, "include": ["history"], "budget": VAST}, "#/include"),
        ({"grid": FOUR, "a/b~": 1}, "#/a~1b~0"),
        ([FOUR], "#"),
        (None, "#"),
        ("1", "#"),
    ],
)
def test_an_unknown_or_wrong_field_is_refused(server_url: str, body: Any, pointer: str) -> None:
    document = refused(server_url, body, 422, "invalid_request")
    assert document.errors
    assert [error.pointer for error in document.errors] == [pointer]


def test_long_names_are_not_echoed_whole(server_url: str) -> None:
    document = refused(server_url, {"grid": FOUR, "x" * 50_000: 0}, 422, "invalid_request")
    assert document.errors
    assert document.errors[0].pointer.startswith("#/xxx")
    assert len(document.model_dump_json()) < 2000


def test_history_within_its_limit_is_given(server_url: str) -> None:
    body = {"grid": FOUR, "include": ["history"], "budget": {**VAST, "nfe": 20}}
    response = post(server_url, json.dumps(body))
    assert response.status_code == 200, response.text
    assert sum(len(one["history"]) for one in response.json()["trajectories"]) <= 20


def test_many_faults_are_told_together_and_not_without_end(server_url: str) -> None:
    body = {"grid": FOUR, **{f"field{number}": 0 for number in range(1000)}}
    document = refused(server_url, body, 422, "invalid_request")
    assert document.errors
    assert 10 < len(document.errors) <= 50


def test_an_unknown_model_and_one_that_does_not_fit(server_url: str) -> None:
    document = refused(server_url, {"grid": FOUR, "model": "nobody"}, 404, "unknown_model")
    assert "nobody" in document.detail
    assert "other" in document.detail
    problem(HTTP.get(f"{server_url}/models/nobody"), 404, "unknown_model")


@pytest.mark.parametrize(
    "body",
    ["{", "grid", '{"grid": }', "\x00", '{"grid": "' + "1" * 20, b"\xff\xfe", "[" * 50_000],
    ids=range(7),
)
def test_a_body_that_is_no_json_is_refused(server_url: str, body: str | bytes) -> None:
    problem(post(server_url, body), 400, "malformed_json")


def test_an_empty_body_is_refused(server_url: str) -> None:
    problem(post(server_url, ""), 422, "invalid_request")


def test_a_number_with_thousands_of_digits_is_refused(server_url: str) -> None:
    body = json.dumps({"grid": FOUR, "budget": {"depth": 0}}).replace("0}", "9" * 5000 + "}")
    response = post(server_url, body)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(server_url: str, kind: str) -> None:
    document = problem(
        post(server_url, json.dumps({"grid": FOUR}), kind), 415, "unsupported_media_type"
    )
    assert "application/json" in document.detail


def test_a_body_of_11_mb_is_refused(server_url: str) -> None:
    problem(post(server_url, b"1" * 11_000_000), 413, "body_too_large")


def test_a_body_of_11_mb_that_does_not_say_so_is_refused(server_url: str) -> None:
    def chunks() -> Any:
        for _ in range(110):
            yield b"1" * 100_000

    response = HTTP.post(
        f"{server_url}/solve",
        content=chunks(),
        headers={"Content-Type": "application/json"},
    )
    problem(response, 413, "body_too_large")


def test_a_body_within_the_limit_is_read_whole(server_url: str) -> None:
    body = json.dumps({"grid": FOUR, "budget": {"depth": 1, "breadth": 1}})
    assert post(server_url, body + " " * 60_000).status_code == 200


def test_paths_and_methods_that_are_not_there(server_url: str) -> None:
    problem(HTTP.get(f"{server_url}/nothing"), 404, "not_found")
    problem(HTTP.get(f"{server_url}/solve"), 405, "method_not_allowed")
    response = HTTP.delete(f"{server_url}/models")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize("given", ["x" * 129, "two words"])
def test_a_request_id_that_cannot_be_used_is_refused(server_url: str, given: str) -> None:
    response = HTTP.get(f"{server_url}/health/live", headers={"X-Request-Id": given})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request_id"
    assert response.json()["request_id"] not in ("", given)

"""Batches, jobs, kept answers and repeated requests, over HTTP."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jsonschema
import pytest

from tests.e2e.conftest import HTTP, eventually, samples

FOUR = "1...4...2..3...."
NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SMALL = {"depth": 4, "breadth": 2}
LONG = {"depth": 4096, "breadth": 16, "stop": "exhausted", "deadline_ms": 3_600_000}


def body(seed: int, **fields: Any) -> dict[str, Any]:
    return {"grid": FOUR, "seed": seed, "model": "other", "budget": SMALL, **fields}


def post(url: str, path: str, json: Any, status: int = 200, **headers: str) -> httpx.Response:
    response = HTTP.post(f"{url}{path}", json=json, headers=headers)
    assert response.status_code == status, response.text
    return response


def ended(url: str, name: str) -> dict[str, Any]:
    """The job, once it has ended."""
    while True:
        job: dict[str, Any] = HTTP.get(f"{url}/jobs/{name}").raise_for_status().json()
        if "ended_at" in job:
            return job
        time.sleep(0.1)


def core(answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer says about the puzzle."""
    return {key: answer[key] for key in answer if key not in ("id", "cached", "timing_ms")}


@pytest.mark.parametrize("listed", [True, False])
def test_each_item_of_a_batch_ends_by_itself(server_url: str, listed: bool) -> None:
    items = [body(1, cache=False), {"grid": "1"}, body(2), {"grid": FOUR, "depth": 3}, 17]
    results = post(server_url, "/solve/batch", items if listed else {"requests": items}).json()
    ends = results["results"]
    assert [set(end) for end in ends] == [{"answer"}, {"error"}, {"answer"}, {"error"}, {"error"}]
    assert [end["answer"]["seed"] for end in ends if "answer" in end] == [1, 2]
    codes = [end["error"]["code"] for end in ends if "error" in end]
    assert codes == ["invalid_grid", "invalid_request", "invalid_request"]
    alone = post(server_url, "/solve", body(1, cache=False)).json()
    assert core(ends[0]["answer"]) == core(alone)


@pytest.mark.parametrize("path", ["/solve/batch", "/jobs"])
@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ([], "#"),
        ({"requests": []}, "#/requests"),
        ({"requests": {}}, "#/requests"),
        ({"requests": [body(1)], "more": 1}, "#/more"),
        ([body(1)] * 257, "#"),
        (True, "#"),
        ("grid", "#"),
    ],
)
def test_what_is_no_batch_is_refused(server_url: str, path: str, sent: Any, pointer: str) -> None:
    problem = post(server_url, path, sent, 422).json()
    assert problem["code"] == "invalid_request"
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_a_larger_batch_than_the_slots_is_answered(server_url: str) -> None:
    items = [body(seed, cache=False, budget={"depth": 2, "breadth": 1}) for seed in range(200)]
    ends = post(server_url, "/solve/batch", items).json()["results"]
    assert [end["answer"]["seed"] for end in ends] == list(range(200))


def test_a_job_is_stored_and_solved(server_url: str) -> None:
    items = [body(seed, cache=False) for seed in range(5)]
    response = post(server_url, "/jobs", {"requests": items}, 202)
    stored = response.json()
    assert response.headers["location"] == f"/jobs/{stored['id']}"
    assert stored["state"] in ("queued", "running", "done")
    assert stored["progress"]["total"] == 5
    job = ended(server_url, stored["id"])
    assert (job["state"], job["progress"]) == ("done", {"done": 5, "total": 5})
    for index, end in enumerate(job["results"]):
        assert core(end["answer"]) == core(post(server_url, "/solve", items[index]).json())
    # What has ended stays as it is.
    assert HTTP.delete(f"{server_url}/jobs/{stored['id']}").json() == job
    document = HTTP.get(f"{server_url}/openapi.json").json()
    schema = {"$ref": "#/components/schemas/JobAnswer", "components": document["components"]}
    jsonschema.validate(job, schema)


def test_a_job_of_one_and_faults_of_a_job(server_url: str) -> None:
    one = post(server_url, "/jobs", body(9), 202).json()
    (end,) = ended(server_url, one["id"])["results"]
    assert end["answer"]["seed"] == 9
    problem = post(server_url, "/jobs", {"requests": [body(1), {"grid": "12"}]}, 422).json()
    assert problem["code"] == "invalid_grid"
    assert [error["pointer"] for error in problem["errors"]] == ["#/requests/1/grid"]
    problem = post(server_url, "/jobs", body(1, budget={"depth": 0}), 422).json()
    assert [error["pointer"] for error in problem["errors"]] == ["#/budget/depth"]
    for ask in (HTTP.get, HTTP.delete):
        unknown = ask(f"{server_url}/jobs/nobody")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_job")


def test_a_cancelled_job_frees_its_slots(server_url: str) -> None:
    job = post(server_url, "/jobs", {"grid": NINE, "budget": LONG, "cache": False}, 202).json()
    eventually(lambda: samples(server_url)["eqr_slots_busy"] > 0)
    cancelled = HTTP.delete(f"{server_url}/jobs/{job['id']}").json()
    assert (cancelled["state"], cancelled["results"]) == ("cancelled", [None])
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)


def test_an_answer_is_kept_unless_it_shall_not(server_url: str) -> None:
    one = body(4242, budget={"depth": 5, "breadth": 3})
    # The ingress may not know the models yet.
    eventually(lambda: bool(post(server_url, "/solve", one).json()["cached"]))
    before = samples(server_url)
    kept = post(server_url, "/solve", {**one, "priority": 5}).json()
    made = post(server_url, "/solve", {**one, "cache": False}).json()
    other = post(server_url, "/solve", {**one, "seed": 4243}).json()
    assert (kept["cached"], made["cached"], other["cached"]) == (True, False, False)
    assert core(kept) == core(made)
    assert kept["id"] != made["id"]
    after = samples(server_url)
    assert after["eqr_cache_hits_total"] - before["eqr_cache_hits_total"] == 1
    assert after["eqr_cache_misses_total"] - before["eqr_cache_misses_total"] == 1
    assert after["eqr_solves_total"] - before["eqr_solves_total"] == 2


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [("/solve", body(77, cache=False), 200), ("/jobs", body(78), 202), ("/solve", {}, 422)],
)
def test_a_repeated_post_gets_the_first_answer(
    server_url: str, path: str, sent: Any, status: int
) -> None:
    key = f"{path}-{status}"
    first = post(server_url, path, sent, status, **{"Idempotency-Key": key})
    again = post(server_url, path, sent, status, **{"Idempotency-Key": key})
    assert first.content == again.content
    assert first.headers.get("location") == again.headers.get("location")
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    other = post(server_url, path, {**sent, "seed": 1}, 409, **{"Idempotency-Key": key})
    assert other.json()["code"] == "idempotency_conflict"

"""`POST /solve` as it should be used."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest

from eqr_core.tasks import parse_grid
from service.client import NO_RETRIES, AsyncEqrClient, EqrClient, TooManyRequests
from service.load import LONGEST_RETRY
from tests.e2e.conftest import HTTP, QUEUE, SLOTS, eventually, samples

FOUR = "1...4...2..3...."
NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
NINE_SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"

FIELDS = {
    "id", "task", "model", "grid", "text", "residual", "converged", "verified", "finish_reason",
    "iterations", "nfe", "layers", "breadth", "agreement", "confidence", "seed", "cached",
    "timing_ms",
}  # fmt: skip

LONG = {"depth": 4096, "breadth": 64, "stop": "exhausted"}


def solve(url: str, **body: Any) -> dict[str, Any]:
    """An answer that is not kept from another test."""
    response = HTTP.post(f"{url}/solve", json={"cache": False, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def rows(text: str, side: int) -> list[list[int]]:
    return [
        [0 if char == "." else int(char) for char in text[start : start + side]]
        for start in range(0, side * side, side)
    ]


@pytest.mark.parametrize("grid", [FOUR, rows(FOUR, 4), NINE, rows(NINE, 9)])
def test_an_answer_has_the_fields_of_the_contract(server_url: str, grid: Any) -> None:
    answer = solve(server_url, grid=grid, budget={"depth": 8, "breadth": 2})
    task, clues = parse_grid(grid)
    assert set(answer) == FIELDS
    assert answer["task"] == "sudoku"
    assert answer["verified"] == task.verify(clues, tuple(map(tuple, answer["grid"])))
    assert answer["text"] == task.text(tuple(map(tuple, answer["grid"])))
    assert answer["finish_reason"] in ("converged", "exhausted")
    assert answer["converged"] == (answer["finish_reason"] == "converged")
    assert 1 <= answer["iterations"] <= 8
    assert answer["iterations"] <= answer["nfe"] <= 16
    assert answer["breadth"]["started"] in (1, 2)
    assert answer["breadth"]["lost"] == 0
    assert answer["cached"] is False
    timing = answer["timing_ms"]
    assert timing["total"] >= timing["queue"] + timing["solve"] - 1e-6


def test_the_grid_chooses_the_model(server_url: str, main_model: str) -> None:
    listed = HTTP.get(f"{server_url}/models").json()["models"]
    first = listed[0]["name"]
    assert {model["name"] for model in listed} == {first, "other"}
    chosen = {
        side: solve(server_url, grid="." * side**2, budget={"depth": 1, "breadth": 1})["model"]
        for side in (4, 9)
    }
    assert chosen[9] == first
    for name in (first, "other"):
        answer = solve(server_url, grid=FOUR, model=name, budget={"depth": 1, "breadth": 1})
        assert answer["model"] == name
        one = HTTP.get(f"{server_url}/models/{name}").json()
        assert one in listed
        assert len(one["digest"]) == 64


def test_the_same_seed_gives_the_same_answer(server_url: str) -> None:
    def same(seed: int) -> dict[str, Any]:
        answer = solve(server_url, grid=FOUR, seed=seed, model="other", budget={"depth": 3})
        return {key: answer[key] for key in FIELDS - {"id", "timing_ms"}}

    assert same(7) == same(7)
    assert same(7)["seed"] == 7
    assert same(7)["residual"] != same(8)["residual"]


def test_trajectories_and_history_come_when_asked_for(server_url: str) -> None:
    budget = {"depth": 5, "breadth": 3, "stop": "exhausted"}
    plain = solve(server_url, grid=FOUR, budget=budget, include=["trajectories"])
    full = solve(server_url, grid=FOUR, budget=budget, include=["history"])
    assert [one["index"] for one in plain["trajectories"]] == [0, 1, 2]
    assert all("history" not in one for one in plain["trajectories"])
    assert all(len(one["history"]) == one["iterations"] == 5 for one in full["trajectories"])
    assert full["nfe"] == 15


def test_a_full_valid_grid_is_its_own_answer(server_url: str) -> None:
    answer = solve(server_url, grid=NINE_SOLVED)
    assert answer["text"] == NINE_SOLVED
    assert (answer["converged"], answer["verified"], answer["nfe"]) == (True, True, 0)


def test_an_empty_grid_and_one_without_solution_are_answered(server_url: str) -> None:
    for grid in ("." * 16, "123." + "...4" + "." * 8):
        answer = solve(server_url, grid=grid, budget={"depth": 4, "breadth": 1})
        assert answer["verified"] in (True, False)
    assert answer["verified"] is False


def test_a_deadline_gives_the_best_answer_so_far(server_url: str) -> None:
    answer = solve(server_url, grid=NINE, budget={**LONG, "deadline_ms": 300})
    assert answer["finish_reason"] == "deadline"
    assert answer["breadth"]["started"] >= 1


def test_64_at_once_are_all_answered_as_alone(server_url: str) -> None:
    async def all_of_them() -> list[dict[str, Any]]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(timeout=None, limits=limits) as client:
            responses = await asyncio.gather(
                *(
                    client.post(
                        f"{server_url}/solve",
                        json={"grid": FOUR, "seed": seed, "model": "other", "budget": budget},
                    )
                    for seed in range(64)
                )
            )
        assert [response.status_code for response in responses] == [200] * 64
        return [response.json() for response in responses]

    budget = {"depth": 6, "breadth": 2}
    together = asyncio.run(all_of_them())
    assert [answer["seed"] for answer in together] == list(range(64))
    for seed in (0, 31, 63):
        alone = solve(server_url, grid=FOUR, seed=seed, model="other", budget=budget)
        assert alone["text"] == together[seed]["text"]
        assert alone["nfe"] == together[seed]["nfe"]


def test_a_client_that_goes_away_frees_its_slots(server_url: str) -> None:
    before = samples(server_url)

    async def ask_and_leave() -> None:
        async with AsyncEqrClient(server_url) as client:
            asking = asyncio.create_task(client.solve(NINE, budget=LONG))
            while not asking.done():
                if (await asyncio.to_thread(samples, server_url))["eqr_slots_busy"]:
                    break
                await asyncio.sleep(0.05)
            assert asking.cancel(), asking.result()

    asyncio.run(ask_and_leave())
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)
    after = samples(server_url)
    cancelled = [name for name in after if "finish_reason=cancelled" in name]
    assert sum(after[name] - before.get(name, 0.0) for name in cancelled) == 1
    assert after["eqr_outer_steps_total"] > before["eqr_outer_steps_total"]
    assert samples(server_url)["eqr_outer_steps_total"] == after["eqr_outer_steps_total"]


def test_a_full_queue_is_told_at_once(server_url: str) -> None:
    async def flood() -> list[TooManyRequests]:
        refused: list[TooManyRequests] = []
        async with AsyncEqrClient(server_url, retries=NO_RETRIES) as client:
            # A time of its own: what is like the refused may not reach a solver for a moment.
            budget = {**LONG, "breadth": 1, "deadline_ms": 50_000}
            running = {
                asyncio.create_task(client.solve(NINE, budget=budget, seed=seed))
                for seed in range(SLOTS + QUEUE + 20)
            }
            while running and len(refused) < 5:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                failed = [task.exception() for task in done]
                refused += [error for error in failed if isinstance(error, TooManyRequests)]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return refused

    refused = asyncio.run(flood())
    assert len(refused) >= 5
    for error in refused:
        assert error.code == "queue_full"
        assert error.retry_after is not None
        assert 1 <= error.retry_after <= LONGEST_RETRY
    eventually(lambda: samples(server_url)["eqr_requests_waiting"] == 0)
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)
    assert samples(server_url)["eqr_requests_rejected_total{code=queue_full}"] >= 5
    assert solve(server_url, grid=FOUR)["text"]


def test_the_sync_client_reads_answers_and_models(server_url: str) -> None:
    with EqrClient(server_url) as client:
        answer = client.solve(FOUR, seed=3, model="other", include=["trajectories"])
        assert answer.seed == 3
        assert answer.trajectories
        assert client.model("other") in client.models()


def test_answers_fit_the_openapi_document(server_url: str) -> None:
    document = HTTP.get(f"{server_url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {
        "/solve",
        "/solve/batch",
        "/solve/stream",
        "/jobs",
        "/jobs/{name}",
        "/models",
        "/models/{name}",
        "/health/live",
        "/health/ready",
        "/metrics",
    } == (set(document["paths"]))
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    components = {"components": document["components"]}

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", **components}
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(value, schema)

    check(solve(server_url, grid=FOUR, include=["history"]), "SolveAnswer")
    check(HTTP.get(f"{server_url}/models").json(), "ModelsAnswer")
    check(HTTP.post(f"{server_url}/solve", json={"grid": "1"}).json(),
          "ProblemDocument")  # fmt: skip
    check({"grid": FOUR, "budget": {"depth": 3}}, "SolveBody")
    assert "HTTPValidationError" not in json.dumps(document["paths"])


def references(value: Any) -> list[str]:
    """Every ``$ref`` of a document."""
    if isinstance(value, list):
        return [one for inner in value for one in references(inner)]
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for inner in value.values() for one in references(inner)]
    return []

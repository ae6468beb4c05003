"""What operators and scripts use: health, metrics, docs, request ids, the command line."""

from __future__ import annotations

import json
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import EQR, HTTP, SLOTS, environment, free_port, samples

FOUR = "1...4...2..3...."

HISTOGRAMS = {
    "eqr_iterations_to_converge", "eqr_final_residual", "eqr_solve_nfe", "eqr_solve_seconds",
    "eqr_queue_seconds", "eqr_tick_seconds",
}  # fmt: skip
COUNTERS = {
    "eqr_solves", "eqr_trajectories", "eqr_outer_steps", "eqr_requests_rejected",
    "eqr_cache_hits", "eqr_cache_misses", "eqr_fanout_tasks",
}  # fmt: skip
GAUGES = {"eqr_slots", "eqr_slots_busy", "eqr_requests_waiting", "eqr_store_up", "eqr_jobs"}


def test_health(server_url: str) -> None:
    assert HTTP.get(f"{server_url}/health/live").json() == {"status": "live"}
    assert HTTP.get(f"{server_url}/health/ready").json() == {"status": "ready"}


def test_the_metrics_are_there_with_their_kinds(server_url: str) -> None:
    HTTP.get(f"{server_url}/nothing")
    response = HTTP.get(f"{server_url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(response.text))
    kinds = {family.name: family.type for family in families}
    assert len(kinds) == len(families)
    for names, kind in ((HISTOGRAMS, "histogram"), (COUNTERS, "counter"), (GAUGES, "gauge")):
        assert {name: kinds.get(name) for name in names} == dict.fromkeys(names, kind)
    assert set(kinds) == HISTOGRAMS | COUNTERS | GAUGES
    for family in families:
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= {
                "task", "model", "finish_reason", "verified", "outcome", "code", "le", "replica",
                "state",
            }  # fmt: skip
            assert not sample.name.endswith("_created")


def test_the_metrics_count_what_was_done(server_url: str) -> None:
    before = samples(server_url)
    answers = [
        HTTP.post(
            f"{server_url}/solve",
            json={
                "grid": FOUR,
                "seed": seed,
                "model": "other",
                "cache": False,
                "budget": {"depth": 5, "breadth": 3, "stop": "exhausted"},
            },
        ).json()
        for seed in range(4)
    ]
    HTTP.get(f"{server_url}/nothing")
    after = samples(server_url)

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grew("eqr_solves_total") == 4
    assert grew("eqr_trajectories_total") == 12
    assert grew("eqr_outer_steps_total") == sum(answer["nfe"] for answer in answers) == 60
    assert grew("eqr_solve_nfe_sum") == 60
    assert grew("eqr_solve_seconds_count") == 4
    assert grew("eqr_final_residual_sum") == pytest.approx(
        sum(answer["residual"] for answer in answers)
    )
    seconds = sum(answer["timing_ms"]["solve"] for answer in answers) / 1e3
    assert grew("eqr_solve_seconds_sum") == pytest.approx(seconds)
    assert grew("eqr_requests_rejected_total{code=not_found}") == 1
    assert 0 < grew("eqr_tick_seconds_count") <= 60, "a tick makes one outer step at least"
    assert after["eqr_slots"] % SLOTS == 0


def test_docs(server_url: str) -> None:
    assert "openapi.json" in HTTP.get(f"{server_url}/docs").text


@pytest.mark.parametrize("path", ["/health/live", "/nothing"])
def test_the_request_id_is_taken_or_made_and_comes_once(server_url: str, path: str) -> None:
    given = HTTP.get(f"{server_url}{path}", headers={"X-Request-Id": "caller-17/a=b"})
    assert given.headers.get_list("x-request-id") == ["caller-17/a=b"]
    made = [HTTP.get(f"{server_url}{path}").headers.get_list("x-request-id") for _ in range(2)]
    assert all(len(ids) == 1 for ids in made)
    assert made[0] != made[1]


def eqr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EQR, *arguments], env=environment(), capture_output=True, text=True)


def test_solve_with_a_server_prints_the_answer(server_url: str) -> None:
    done = eqr("solve", FOUR, "--server", server_url, "--model", "other", "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["seed"]) == ("other", 5)
    drawn = eqr("solve", FOUR, "--server", server_url, "--model", "other", "--seed", "5")
    assert drawn.returncode == 0, drawn.stderr
    assert "model other" in drawn.stdout
    assert drawn.stdout.count("|") == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([FOUR, "--model", "nobody"], 2, "unknown_model"),
        (["11" + FOUR[2:]], 2, "row 1"),
        ([FOUR, "--depth", "0"], 2, "depth"),
    ],
)
def test_solve_with_a_server_tells_a_problem_in_one_line(
    server_url: str, arguments: list[str], code: int, words: str
) -> None:
    done = eqr("solve", "--server", server_url, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_solve_without_a_server_there_tells_so_in_one_line() -> None:
    done = eqr("solve", FOUR, "--server", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "127.0.0.1" in done.stderr

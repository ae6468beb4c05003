"""A burst starts a solver; what runs beyond the grace of a stop signal ends with a status."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.checkpoints import save_random
from tests.e2e.conftest import HTTP, Server, eventually, samples, serving

NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
LONG = {"depth": 4096, "breadth": 64, "stop": "exhausted", "deadline_ms": 3_600_000}
REQUESTS = 6


def solvers(server: Server) -> int:
    """Solver replicas that report their slots."""
    text = HTTP.get(f"{server.url}/metrics").raise_for_status().text
    return sum(line.startswith("eqr_slots{") for line in text.splitlines())


def test_a_burst_starts_a_solver_and_a_stop_signal_answers_all(tmp_path: Path) -> None:
    save_random(tmp_path / "random")
    flags = ["--models", str(tmp_path / "random"), "--max-replicas", "2", "--backlog-seconds", "5"]
    with (
        ThreadPoolExecutor(REQUESTS) as pool,
        serving(tmp_path, *flags, "--drain-seconds", "1") as server,
    ):
        assert solvers(server) == 1
        answers: list[Future[httpx.Response]] = [
            pool.submit(
                HTTP.post,
                f"{server.url}/solve",
                json={"grid": NINE, "seed": seed, "budget": LONG, "cache": False},
            )
            for seed in range(REQUESTS)
        ]
        eventually(lambda: over(server, answers) or solvers(server) == 2)
        assert solvers(server) == 2
        assert samples(server.url)["eqr_slots_busy"] > 0
        server.process.send_signal(signal.SIGTERM)
        for answer in answers:
            response = answer.result()
            assert response.status_code == 503, response.text
            assert response.json()["code"] == "draining"
        assert server.process.wait() == 0
        assert "Traceback" not in server.log.read_text()


def over(server: Server, answers: list[Future[httpx.Response]]) -> bool:
    """Fail where nothing is left to wait for: a solve has ended too early, or the service has."""
    if server.process.poll() is not None:
        pytest.fail(f"eqr serve has ended:\n{server.log.read_text()}")
    for answer in answers:
        if answer.done():
            pytest.fail(f"a solve ended before its time: {answer.result().text}")
    return False

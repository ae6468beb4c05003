"""Jobs outlive every process of the service, one after the other, and then the service."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.checkpoints import save_random
from tests.e2e.conftest import HTTP, eventually, serving
from tests.e2e.test_lifecycle import processes

FOUR = "1...4...2..3...."
ITEMS = 60


def body(seed: int) -> dict[str, Any]:
    budget = {"depth": 100, "breadth": 2, "stop": "exhausted"}
    return {"grid": FOUR, "seed": seed, "budget": budget, "cache": False}


def state(url: str, name: str) -> tuple[str, int]:
    try:
        response = HTTP.get(f"{url}/jobs/{name}")
    except httpx.TransportError:
        return "", 0
    if response.status_code != 200:
        return "", 0
    return response.json()["state"], response.json()["progress"]["done"]


def goes_on(url: str, name: str, done: int) -> int:
    """Items that have ended, once they are more than `done` or all."""
    eventually(lambda: state(url, name)[1] > min(done, ITEMS - 1))
    return state(url, name)[1]


def solves(url: str) -> bool:
    try:
        return HTTP.post(f"{url}/solve", json=body(0)).is_success
    except httpx.TransportError:  # the connection was to what has died
        return False


def kill(ancestor: int, word: bytes) -> None:
    (one,) = [
        one
        for one in processes(ancestor, "")
        if word in Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ")
    ]
    os.kill(one, signal.SIGKILL)


def test_a_job_outlives_ingress_solver_store_and_service(tmp_path: Path) -> None:
    save_random(tmp_path / "random")
    flags = ["--models", str(tmp_path / "random"), "--job-items", "1"]
    with serving(tmp_path, *flags) as server:
        items = [body(seed) for seed in range(ITEMS)]
        name = HTTP.post(f"{server.url}/jobs", json=items).raise_for_status().json()["id"]
        done = 0
        for word in (b"eqr:Ingress", b"eqr:Solver", b"valkey-server"):
            done = goes_on(server.url, name, done)
            kill(server.process.pid, word)
            # A solve needs none of the three to stay alive.
            eventually(lambda: solves(server.url))
        done = goes_on(server.url, name, done)
    with serving(tmp_path, *flags) as server:
        assert state(server.url, name)[1] >= done
        eventually(lambda: state(server.url, name)[0] == "done")
        job = HTTP.get(f"{server.url}/jobs/{name}").json()
        assert job["progress"] == {"done": ITEMS, "total": ITEMS}
        assert [end["answer"]["seed"] for end in job["results"]] == list(range(ITEMS))

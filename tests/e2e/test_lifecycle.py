"""A solver that is killed, a service that is stopped, and the demonstration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.local import free_ports
from tests.checkpoints import save_random
from tests.e2e.conftest import (
    EQR,
    HTTP,
    Server,
    environment,
    eventually,
    ports,
    samples,
    serving,
)
from tests.processes import alive

NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
LONG = {"depth": 4096, "breadth": 4, "stop": "exhausted", "deadline_ms": 3_600_000}
SOLVER = "ray::ServeReplica:eqr:Solver"


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "random"
    save_random(folder)
    return folder


@pytest.fixture(scope="module")
def own_server(own_model: Path) -> Iterator[Server]:
    flags = ["--models", str(own_model), "--drain-seconds", "3600"]
    with serving(own_model.parent, *flags) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def long_solve(pool: ThreadPoolExecutor, url: str) -> Future[httpx.Response]:
    """A solve that goes on for a while, begun and now in its slots."""
    body = {"grid": NINE, "budget": LONG, "cache": False}
    answer = pool.submit(HTTP.post, f"{url}/solve", json=body)
    eventually(lambda: answer.done() or samples(url)["eqr_slots_busy"] > 0)
    assert not answer.done(), answer.result().text
    return answer


def ready(url: str) -> int:
    return HTTP.get(f"{url}/health/ready").status_code


def test_a_solve_survives_the_death_of_its_solver(
    own_server: Server, pool: ThreadPoolExecutor
) -> None:
    answer = long_solve(pool, own_server.url)
    (solver,) = processes(own_server.process.pid, SOLVER)
    os.kill(solver, signal.SIGKILL)
    response = answer.result()
    assert response.status_code == 200, response.text
    assert response.json()["iterations"] == LONG["depth"]
    assert response.json()["nfe"] == 4 * 4096
    assert processes(own_server.process.pid, SOLVER) != [solver]
    assert ready(own_server.url) == 200


def test_a_stop_signal_lets_running_solves_end(
    own_server: Server, pool: ThreadPoolExecutor
) -> None:
    answer = long_solve(pool, own_server.url)
    own_server.process.send_signal(signal.SIGTERM)
    eventually(lambda: ready(own_server.url) == 503)
    refused = HTTP.post(f"{own_server.url}/solve", json={"grid": NINE})
    assert refused.status_code == 503
    assert refused.json()["code"] == "draining"
    assert int(refused.headers["retry-after"]) > 0
    assert HTTP.get(f"{own_server.url}/health/live").status_code == 200
    response = answer.result()
    assert response.status_code == 200, response.text
    assert response.json()["iterations"] == LONG["depth"]
    assert own_server.process.wait() == 0, own_server.log.read_text()
    assert "Traceback" not in own_server.log.read_text()


def test_a_stop_signal_while_it_starts_leaves_nothing_behind(
    own_server: Server, tmp_path: Path
) -> None:
    models = own_server.log.parent / "random"
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*EQR, "serve", *ports(*free_ports(2)), "--models", str(models)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    eventually(lambda: bool(processes(process.pid, "ray::ServeController")))
    children = processes(process.pid, "")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, log.read_text()
    assert "Traceback" not in log.read_text()
    eventually(lambda: not any(map(alive, children)))


@pytest.fixture(scope="module")
def pair(own_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two solvers. The last test that has it ends it."""
    folder = tmp_path_factory.mktemp("pair")
    with serving(folder, "--models", str(own_model), "--replicas", "2") as server:
        yield server


def test_two_replicas_share_the_work_and_outlive_each_other(
    pair: Server, pool: ThreadPoolExecutor
) -> None:
    def solve(number: int) -> int:
        budget = {"depth": 50, "breadth": 1}
        body = {"grid": NINE, "seed": number, "budget": budget, "cache": False}
        return HTTP.post(f"{pair.url}/solve", json=body).status_code

    solvers = processes(pair.process.pid, SOLVER)
    assert len(solvers) == 2
    assert set(pool.map(solve, range(40))) == {200}
    assert solves_by_replica(pair.url).count(0.0) == 0
    assert sum(solves_by_replica(pair.url)) == 40
    answers = [pool.submit(solve, number) for number in range(40)]
    os.kill(solvers[0], signal.SIGKILL)
    assert {answer.result() for answer in answers} == {200}
    eventually(lambda: len(solves_by_replica(pair.url)) == 2)
    assert solvers[0] not in processes(pair.process.pid, SOLVER)


def solves_by_replica(url: str) -> list[float]:
    """Answers that each solver replica has counted."""
    text = HTTP.get(f"{url}/metrics").raise_for_status().text
    replicas: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "eqr_slots":
                replicas.setdefault(sample.labels["replica"], 0.0)
            if sample.name == "eqr_solves_total":
                name = sample.labels["replica"]
                replicas[name] = replicas.get(name, 0.0) + sample.value
    return list(replicas.values())


def test_a_service_whose_ray_has_died_says_so(pair: Server) -> None:
    (gcs,) = [
        process
        for process in processes(pair.process.pid, "")
        if b"gcs_server" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
    ]
    os.kill(gcs, signal.SIGKILL)
    assert pair.process.wait() == 1, pair.log.read_text()
    log = pair.log.read_text()
    assert "Traceback" not in log
    assert "error: Ray no longer answers" in log


def test_the_demonstration_solves_and_draws(main_model: str, tmp_path: Path) -> None:
    port, grpc_port = free_ports(2)
    done = subprocess.run(
        [sys.executable, "-m", "service.demo", "--once", "--port", str(port)],
        env={
            **environment(),
            "EQR_MODELS": main_model,
            "EQR_CPUS": "1",
            "EQR_GRPC_PORT": str(grpc_port),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("puzzle", "answer", "residual", "iterations", "NFE", "breadth", "time"):
        assert word in done.stdout
    assert f"curl -s http://127.0.0.1:{port}/solve" in done.stdout


def processes(ancestor: int, title: str) -> list[int]:
    """Ids of the descendants of a process whose command begins with `title`."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        parents[int(folder.name)] = int(status[1])
        if command.startswith(title):
            found.append(int(folder.name))

    def descends(process: Any) -> bool:
        while process in parents:
            process = parents[process]
            if process == ancestor:
                return True
        return False

    return [process for process in found if descends(process)]

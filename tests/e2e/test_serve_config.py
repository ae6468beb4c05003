"""The RayService's Serve config, run as `serve run` runs it, on a local Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import httpx
import pytest
import yaml

from service.local import free_ports, local_variables, serve_variables
from service.stubs import solver_pb2 as pb
from service.stubs.solver_pb2_grpc import SolverStub
from tests.checkpoints import save_random
from tests.e2e.conftest import HTTP, ROOT, STOP_SECONDS, environment, eventually

FOUR = "1...4...2..3...."

SERVE_RUN = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=200 * 1024**2,
         _node_ip_address="127.0.0.1", log_to_driver=False)
from ray.serve.scripts import cli
cli()
"""
"""`serve run`, on a Ray that leaves room for others."""


def config(model: Path, http: int, grpc_port: int) -> dict[str, Any]:
    """That of deploy/kuberay/service.yaml, for one CPU, free ports and a small model."""
    manifests = yaml.safe_load_all((ROOT / "deploy/kuberay/service.yaml").read_text())
    (service,) = (one for one in manifests if one["kind"] == "RayService")
    found: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    found["proxy_location"] = "HeadOnly"
    found["http_options"] = {"host": "127.0.0.1", "port": http}
    found["grpc_options"]["port"] = grpc_port
    (application,) = found["applications"]
    application["args"] |= {
        "models": str(model),
        "replicas": 1,
        "max_replicas": 2,
        "solver_cpus": 0.2,
        "ingresses": 2,
        "api_keys_file": None,
    }
    return found


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets, whose paths have room for about a hundred bytes."""
    with TemporaryDirectory(prefix="eqr-", dir="/tmp") as name:
        yield Path(name)


def test_the_config_of_the_cluster_serves_http_and_grpc(tmp_path: Path, short_path: Path) -> None:
    save_random(tmp_path / "random")
    http, grpc_port = free_ports(2)
    file, log = tmp_path / "config.yaml", tmp_path / "log"
    file.write_text(yaml.safe_dump(config(tmp_path / "random", http, grpc_port)))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE_RUN, "run", str(file)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**environment(), **serve_variables(), **local_variables(short_path, "127.0.0.1")},
            cwd=tmp_path,
        )
    url = f"http://127.0.0.1:{http}"

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"serve run ended with {process.returncode}:\n{log.read_text()}")
        for line in log.read_text(errors="replace").splitlines():
            if "DEPLOY_FAILED" in line:
                pytest.fail(log.read_text())
        try:
            return HTTP.get(f"{url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(ready)
        answer = HTTP.post(f"{url}/solve", json={"grid": FOUR, "budget": {"breadth": 2}})
        assert answer.status_code == 200, answer.text
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            budget = pb.Budget(breadth=2)
            response = SolverStub(channel).Solve(pb.SolveRequest(grid=FOUR, budget=budget))
        assert response.text == answer.json()["text"]
        metrics = HTTP.get(f"{url}/metrics").raise_for_status().text
        ingresses = {
            line.split('replica="')[1].split('"')[0]
            for line in metrics.splitlines()
            if 'replica="Ingress#' in line
        }
        assert len(ingresses) == 2
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"serve run does not stop:\n{log.read_text()}")

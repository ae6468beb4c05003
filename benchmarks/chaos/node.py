"""A second Ray node on this machine, for the service's fan-out workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.local import NotServing, Service

STOP_SECONDS = 30.0


@contextmanager
def node_beside(service: Service) -> Iterator[int]:
    """A node with one CPU in the service's cluster until the block ends: its process's id."""
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
    place = ["--block", "--node-ip-address", "127.0.0.1", "--num-cpus", "1"]
    memory = ["--object-store-memory", str(100 * 2**20)]
    address, variables = _cluster(service)
    with (service.folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--address", address, *place, *memory],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )
        try:
            yield process.pid
        finally:
            _stop(process)


def _cluster(service: Service) -> tuple[str, dict[str, str]]:
    """Address of the service's Ray, as its raylet was told it, and the token to join with."""
    for child in psutil.Process(service.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            for argument in child.cmdline():
                name, _, address = str(argument).partition("=")
                if name == "--gcs-address":
                    given = child.environ()
                    return address, {key: given[key] for key in given if "RAY_AUTH" in key}
    raise NotServing("the service runs no Ray")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it and, as it leads a session of its own, all that it has started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

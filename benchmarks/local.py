"""A service of this machine's own for a benchmark: `eqr serve` in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from eqr_core.errors import EqrError
from service.local import free_ports

START_SECONDS = 300.0
STOP_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    """A running service: its addresses, its process, the folder of its log."""

    rest: str
    grpc: str
    pid: int
    folder: Path


class NotServing(EqrError):
    """The service did not start; the message is the end of its log."""


@contextmanager
def local_service(*flags: str, variables: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`eqr serve` with `flags` on free ports until the block ends. NotServing."""
    with tempfile.TemporaryDirectory(prefix="eqr-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        port, grpc_port = free_ports(2)
        command = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
        place = ["--port", str(port), "--grpc-port", str(grpc_port)]
        log = folder / "serve.log"
        process = subprocess.Popen(
            [*command, *place, "--store-dir", str(folder / "store"), *flags],
            stdout=stack.enter_context(log.open("wb")),
            stderr=subprocess.STDOUT,
            env={**os.environ, **(variables or {})},
            # Ctrl-C is for the benchmark, which then stops it in order.
            start_new_session=True,
        )
        stack.callback(_stop, process)
        _wait_until_serving(process, log)
        yield Service(
            f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{grpc_port}", process.pid, folder
        )


def _wait_until_serving(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while b"serving at" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise NotServing("eqr serve did not start: " + " | ".join(lines[-5:]))
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

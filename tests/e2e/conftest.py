"""One real service for all end-to-end tests: `eqr serve` with a local Ray, on a free port."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from eqr_core.model.checkpoint import zoo_names
from service.local import free_ports
from tests.checkpoints import save_random

ROOT = Path(__file__).parents[2]
EQR = [sys.executable, "-c", "from service.cli import main; main()"]
SLOTS, QUEUE = 16, 60
STOP_SECONDS = 200.0
"""More than all that `eqr serve` waits for when it stops."""


@dataclass(frozen=True)
class Server:
    """A running `eqr serve`."""

    url: str
    grpc: str
    process: subprocess.Popen[bytes]
    log: Path


TOKEN = secrets.token_hex(32)
HTTP = httpx.Client(timeout=None)
"""Without limits of time: a test that waits too long is a slow machine, not a fault."""


STATE = tempfile.TemporaryDirectory(prefix="eqr-state-")
"""Where a service without --store-dir keeps its store."""


def environment() -> dict[str, str]:
    """This process's, without settings of its own, for a Ray with a token of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EQR_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "XDG_STATE_HOME": STATE.name,
        "COLUMNS": "120",
    }


def free_port() -> int:
    return free_ports(1)[0]


def ports(http: int, grpc: int) -> list[str]:
    return ["--port", str(http), "--grpc-port", str(grpc)]


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """`eqr serve` until the block ends; its log is in `folder`."""
    port, grpc_port = free_ports(2)
    log = folder / "serve.log"
    with log.open("wb") as out:
        place = ["--cpus", "1", "--store-dir", str(folder / "store")]
        process = subprocess.Popen(
            [*EQR, "serve", *ports(port, grpc_port), *place, *flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
            cwd=folder,
        )
        server = Server(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", process, log)
        try:
            eventually(lambda: process.poll() is not None or b"serving at" in log.read_bytes())
            if process.poll() is not None:
                pytest.fail(f"eqr serve ended with {process.returncode}:\n{log.read_text()}")
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"eqr serve does not stop:\n{log.read_text()}")


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds`."""
    while not holds():
        time.sleep(0.1)


def samples(url: str) -> dict[str, float]:
    """Values of all metrics, summed over replicas and labels, and by name with sorted labels."""
    text = HTTP.get(f"{url}/metrics").raise_for_status().text
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            kept = sorted((key, text) for key, text in labels.items() if key != "replica")
            full = name + "{" + ",".join(f"{key}={text}" for key, text in kept) + "}"
            for key in {name, full}:
                totals[key] = totals.get(key, 0.0) + value
    return totals


PATIENCE_MS = 120_000
"""For what a page waits for."""


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkpoint, for 4×4 alone, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "other"
    save_random(folder, name="other", seed=1)
    return folder


@pytest.fixture(scope="session")
def main_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped model; random weights where there is none."""
    if "sudoku" in zoo_names():
        return "sudoku"
    folder = tmp_path_factory.mktemp("models") / "random"
    save_random(folder, name="random", tolerance=1e-4)
    return str(folder)


@pytest.fixture(scope="session")
def server(
    main_model: str, other_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    flags = ["--slots", str(SLOTS), "--queue", str(QUEUE)]
    models = f"{main_model},{other_model}"
    with serving(tmp_path_factory.mktemp("server"), "--models", models, *flags) as one:
        yield one


@pytest.fixture(scope="session")
def server_url(server: Server) -> str:
    return server.url


@pytest.fixture(scope="session")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; for one module, as it has an event loop of its own."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine (Debian: apt-get install chromium)")
    flags = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; what it waits for may take longer than any solve here."""
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield context.new_page()

"""The client against servers that are not ours, and the command line without the extra."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from eqr_core.errors import EqrError
from service.client import AnswerUnreadable, ConnectionFailed, EqrClient, TooManyRequests
from service.problems import Refusal
from tests.checkpoints import save_random

PROBLEM = Refusal("queue_full", "wait").document("an id").model_dump_json()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(429 if self.path == "/models/full" else 200)
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(PROBLEM.encode() if self.path == "/models/full" else b"<html>hello</html>")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_that_is_no_answer_is_told(stranger: str) -> None:
    with EqrClient(stranger) as client, pytest.raises(AnswerUnreadable, match="neither"):
        client.models()


def test_a_problem_is_an_error_with_its_fields(stranger: str) -> None:
    with EqrClient(stranger) as client, pytest.raises(TooManyRequests) as caught:
        client.model("full")
    error = caught.value
    assert (error.status, error.code, error.retry_after) == (429, "queue_full", 7.0)
    assert (error.request_id, error.detail, error.errors) == ("an id", "wait", [])
    assert isinstance(error, EqrError)


def test_no_server_is_told(stranger: str) -> None:
    with EqrClient("http://127.0.0.1:9") as client, pytest.raises(ConnectionFailed):
        client.models()


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [(["serve"], "ray"), (["solve", "1" * 16, "--server", "http://127.0.0.1:9"], "httpx")],
)
def test_a_command_without_its_packages_says_what_to_install(
    arguments: list[str], missing: str
) -> None:
    hidden = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert "eqr[service]" in done.stderr


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "serve", *flags],
        capture_output=True,
        text=True,
    )


def test_serve_tells_what_it_cannot_serve_in_one_line(stranger: str, tmp_path: Path) -> None:
    save_random(tmp_path / "good")
    save_random(tmp_path / "bad")
    weights = tmp_path / "bad" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    taken = stranger.rpartition(":")[2]
    for flags, code, word in (
        (["--port", "0"], 2, "port"),
        (["--models", "nobody"], 2, "nobody"),
        (["--models", str(tmp_path / "bad")], 2, "digest"),
        (["--models", str(tmp_path / "good"), "--port", taken], 1, taken),
    ):
        done = serve(*flags)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.count("\n") == 1
        assert word in done.stderr

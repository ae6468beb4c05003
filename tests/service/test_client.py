"""The client against servers that are not ours, and the command line without the extra."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from eqr_core.errors import EqrError
from eqr_core.model.checkpoint import update_card
from service.client import (
    NO_RETRIES,
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    EqrClient,
    RequestUnsendable,
    TooManyRequests,
)
from service.local import free_ports
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
    with (
        EqrClient(stranger, retries=NO_RETRIES) as client,
        pytest.raises(TooManyRequests) as caught,
    ):
        client.model("full")
    error = caught.value
    assert (error.status, error.code, error.retry_after) == (429, "queue_full", 7.0)
    assert (error.request_id, error.detail, error.errors) == ("an id", "wait", [])
    assert isinstance(error, EqrError)


@pytest.mark.parametrize("server", ["http://[::1", "http://a:99999", "", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_told(server: str) -> None:
    with pytest.raises(ClientError), EqrClient(server) as client:
        client.models()


def test_what_json_cannot_say_is_told(stranger: str) -> None:
    with EqrClient(stranger) as client, pytest.raises(RequestUnsendable, match="JSON"):
        client.solve("1" * 16, noise=float("nan"))


def test_the_name_of_a_model_is_one_part_of_the_path(stranger: str) -> None:
    with EqrClient(stranger) as client, pytest.raises(AnswerUnreadable, match="models/a%2Ffull"):
        client.model("a/full")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--tolerance", "nan"], "tolerance"),
        (["--noise", "nan"], "noise"),
        (["--seed", "-1"], "seed"),
        (["--server", "http://[::1"], "address"),
    ],
)
def test_what_cannot_be_sent_is_told_in_one_line(arguments: list[str], word: str) -> None:
    done = eqr("solve", "." * 16, "--server", "http://127.0.0.1:9", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


def test_no_server_is_told(stranger: str) -> None:
    with EqrClient("http://127.0.0.1:9") as client, pytest.raises(ConnectionFailed):
        client.models()


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["serve"], "ray", "service"),
        (["solve", "1" * 16, "--server", "http://127.0.0.1:9"], "httpx", "client"),
        (["solve", "1" * 16, "--server", "grpc://127.0.0.1:9"], "grpc", "client"),
    ],
)
def test_a_command_without_its_packages_says_what_to_install(
    arguments: list[str], missing: str, extra: str
) -> None:
    hidden = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr


def eqr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
    )


def demo(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.demo", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


def test_the_demonstration_tells_what_is_wrong_in_one_line(stranger: str) -> None:
    taken = stranger.rpartition(":")[2]
    for flags, variables, code, word in (
        (["--port", "0"], {}, 2, "port"),
        (["--port", taken], {}, 1, taken),
        ([], {"EQR_COLOUR": "red"}, 2, "EQR_COLOUR"),
    ):
        done = demo(*flags, **variables)
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == 1
        assert word in done.stderr


def resized(folder: Path, size: str) -> None:
    """A checkpoint whose card names a size that its task does not have."""
    update_card(folder, replace(save_random(folder), sizes=(size,)))


def test_serve_tells_what_it_cannot_serve_in_one_line(stranger: str, tmp_path: Path) -> None:
    save_random(tmp_path / "good")
    save_random(tmp_path / "bad")
    weights = tmp_path / "bad" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    resized(tmp_path / "resized", "5x5")
    taken = stranger.rpartition(":")[2]
    twice = f"{tmp_path / 'good'},{tmp_path / 'again'}"
    save_random(tmp_path / "again")
    # Others may use those that it takes if none are given.
    http, rpc = map(str, free_ports(2))
    for flags, code, word in (
        (["--port", "0"], 2, "port"),
        (["--models", "nobody"], 2, "nobody"),
        (["--models", str(tmp_path / "bad")], 2, "digest"),
        (["--models", str(tmp_path / "resized")], 2, "5x5"),
        (["--models", twice], 2, "two checkpoints"),
        (["--models", str(tmp_path / "good"), "--port", taken], 1, taken),
    ):
        done = eqr("serve", "--port", http, "--grpc-port", rpc, *flags)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.count("\n") == 1
        assert word in done.stderr

"""HAProxy as the service runs it: Serve's own configuration, mended, in the real HAProxy."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions

from service import rpc_errors
from service.client import (
    NO_RETRIES,
    ClientError,
    ConnectionFailed,
    EqrClient,
    Unavailable,
)
from service.gate import REQUEST_ID
from service.haproxy import DOMAIN, ERRORS, FRONT_HOST, UNAVAILABLE, mended
from service.local import free_ports, front_path
from service.messages import answer_message
from service.orders import order_of
from service.problems import MEDIA_TYPE, Refusal
from service.schemas import SolveBody
from tests.processes import alive
from tests.service.orders import FOUR, answer

BODY = b'{"grid": "."}'
BINARY = front_path()


def configuration(
    folder: Path, http: int, *ingresses: int, rpc: int = 0, for_rpc: int | None = None
) -> Path:
    """A file as Serve writes it, with ingresses that should listen on ports; one for gRPC alone."""
    add = "service.proxy.add_services"
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        http_options=HTTPOptions(host="127.0.0.1", port=http),
        grpc_options=gRPCOptions(port=rpc or free_ports(1)[0], grpc_servicer_functions=[add]),
        # As it may stand in the environment: a job would be stored twice.
        retry_on="conn-failure empty-response",
        metrics_enabled=False,
        has_received_routes=True,
        has_received_servers=True,
    )
    rpc_ingresses = ingresses if for_rpc is None else [for_rpc]
    path = folder / "haproxy.cfg"
    haproxy = HAProxyApi(cfg=config, config_file_path=str(path))
    backends = [
        BackendConfig(
            name=f"{protocol.value}-eqr",
            path_prefix="/",
            app_name="eqr",
            servers=[
                ServerConfig(name=f"ingress-{port}", host="127.0.0.1", port=port)
                for port in (rpc_ingresses if protocol.value == "gRPC" else ingresses)
            ],
            protocol=protocol,
        )
        for protocol in RequestProtocol
        if protocol.value in ("HTTP", "gRPC")
    ]
    haproxy.set_backend_configs({one.name: one for one in backends})
    haproxy._generate_config_file_internal()
    return path


class Ingress(threading.Thread):
    """Answers GET; closes, or resets, the connection of anything else once it has read it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.resets = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            while (data := connection.recv(65536)).startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            while data.startswith(b"POST") and not data.endswith(BODY):
                data += connection.recv(65536)
            if b"Healthz" in data:
                connection.sendall(b"success")
            elif data:
                self.requests.append(data)
                if self.resets:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def stop(self) -> None:
        self._socket.close()


@pytest.fixture
def ingress() -> Iterator[Ingress]:
    one = Ingress()
    one.start()
    yield one
    one.stop()


def wait_for(port: int, process: subprocess.Popen[Any], host: str = "127.0.0.1") -> None:
    while process.poll() is None:
        try:
            socket.create_connection((host, port)).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"haproxy ended with {process.returncode}")


@contextmanager
def front_of(
    folder: Path, *ingresses: int, for_rpc: int | None = None, files: int | None = None
) -> Iterator[tuple[str, str]]:
    """Addresses of a HAProxy in front of ingresses, for HTTP and gRPC, with so many open files."""
    http, rpc = free_ports(2)
    path = configuration(folder, http, *ingresses, rpc=rpc, for_rpc=for_rpc)
    variables = {**os.environ, "RAY_SERVE_HAPROXY_BINARY_PATH": BINARY}
    limited = [] if files is None else ["prlimit", f"--nofile={files}"]
    process = subprocess.Popen([*limited, BINARY, "-db", "-f", str(path)], env=variables)
    try:
        wait_for(http, process)
        yield f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{rpc}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def fronts(tmp_path: Path, ingress: Ingress) -> Iterator[tuple[str, str]]:
    """Addresses for HTTP and gRPC."""
    with front_of(tmp_path, ingress.port) as addresses:
        yield addresses


@pytest.fixture
def front(fronts: tuple[str, str]) -> str:
    return fronts[0]


def document(response: httpx.Response, code: str, detail: str, name: str) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers[REQUEST_ID] == name
    refusal = Refusal(code, detail)
    assert response.headers["Retry-After"] == refusal.headers["Retry-After"]
    assert response.json() == refusal.document(name).model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize("name", ["mine", "a\"b\\c%{d}'e"])
def test_an_ingress_that_dies_is_told_in_the_services_words(
    front: str, ingress: Ingress, name: str
) -> None:
    response = httpx.post(f"{front}/solve", content=BODY, headers={REQUEST_ID: name}, timeout=None)
    document(response, *ERRORS[502], name)
    # More than once: the answer to the first try never came.
    assert len(ingress.requests) > 1


@pytest.mark.parametrize("path", ["/solve", "/jobs"])
def test_a_reset_has_a_status_where_a_connection_has_been_used_before(
    front: str, ingress: Ingress, path: str
) -> None:
    ingress.resets = True
    with httpx.Client(base_url=front, timeout=None) as client:
        for _ in range(3):
            assert client.get("/models").status_code == 200
        response = client.post(path, content=BODY, headers={REQUEST_ID: "mine"})
    document(response, *ERRORS[502], "mine")
    assert (len(ingress.requests) > 1) == (path != "/jobs")


RPC_INGRESS = """
import asyncio, os, signal, sys
import grpc

port, fatal, held, answer = sys.argv[1:]

async def end(request, context):
    return bytes.fromhex(answer)

async def wait(request, context):
    await asyncio.Event().wait()

async def healthy(request, context):
    return b"\\x0a\\x07success"

class Ingress(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method.endswith("Healthz"):
            return grpc.unary_unary_rpc_method_handler(healthy)
        print(call.method, flush=True)
        if call.method == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return grpc.unary_unary_rpc_method_handler(wait if call.method == held else end)

async def main():
    server = grpc.aio.server(handlers=[Ingress()])
    server.add_insecure_port("127.0.0.1:" + port)
    await server.start()
    await server.wait_for_termination()

asyncio.run(main())
"""
SOLVE, SUBMIT = "/eqr.v1.Solver/Solve", "/eqr.v1.Solver/SubmitJob"


@contextmanager
def rpc_ingress(
    port: int, answer: bytes, fatal: str = "", held: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """One that answers everything with `answer`, but the method `held`, which it never answers,
    and dies of the method `fatal`; prints methods.
    """
    command = [sys.executable, "-c", RPC_INGRESS, str(port), fatal, held, answer.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(port, process)
            yield process
        finally:
            process.kill()


def test_a_solve_whose_ingress_dies_is_tried_again_on_another(tmp_path: Path) -> None:
    first, second = free_ports(2)
    told = answer_message(answer(order_of(SolveBody(grid=FOUR), 1000.0))).SerializeToString()
    with (
        rpc_ingress(first, told, fatal=SOLVE) as mortal,
        rpc_ingress(second, told),
        front_of(tmp_path, first, second) as (_, rpc),
        EqrClient(rpc, retries=NO_RETRIES) as client,
    ):
        for _ in range(4):
            assert client.solve(FOUR).text
        assert mortal.wait() == -signal.SIGKILL


def submit_until_unavailable(client: EqrClient) -> Iterator[ClientError]:
    """How submissions end, up to the first that finds nobody, of nine at most."""
    for _ in range(9):
        # An empty answer, which tells of no job, is an error too.
        with pytest.raises(ClientError) as told:
            client.submit([FOUR])
        yield told.value
        if isinstance(told.value, Unavailable):
            return


def test_a_job_whose_ingress_dies_has_a_status_and_is_not_tried_again(tmp_path: Path) -> None:
    first, second = free_ports(2)
    with (
        rpc_ingress(first, b"", fatal=SUBMIT) as mortal,
        rpc_ingress(second, b"") as other,
        front_of(tmp_path, first, second) as (_, rpc),
        EqrClient(rpc, retries=NO_RETRIES) as client,
    ):
        for _ in range(3):
            assert client.models() == []
        ends = list(submit_until_unavailable(client))
        assert isinstance(ends[-1], Unavailable)
        assert (ends[-1].code, ends[-1].detail) == ERRORS[502]
        assert mortal.wait() == -signal.SIGKILL
        other.kill()
        assert other.stdout is not None
        assert other.stdout.read().count(SUBMIT) == len(ends) - 1


def test_a_job_is_not_stored_twice(front: str, ingress: Ingress) -> None:
    headers = {REQUEST_ID: "mine"}
    response = httpx.post(f"{front}/jobs", content=BODY, headers=headers, timeout=None)
    document(response, *ERRORS[502], "mine")
    assert len(ingress.requests) == 1


def test_no_ingress_is_told_in_the_services_words(front: str, ingress: Ingress) -> None:
    ingress.stop()
    while True:
        response = httpx.get(f"{front}/models", headers={REQUEST_ID: "mine"}, timeout=None)
        if ERRORS[503][1] in response.text:
            break
    document(response, *ERRORS[503], "mine")


def test_grpc_without_an_ingress_has_status_and_details(
    fronts: tuple[str, str], ingress: Ingress
) -> None:
    ingress.stop()
    with EqrClient(fronts[1], retries=NO_RETRIES) as client:
        while True:
            try:
                client.solve("." * 16)
            except Unavailable as error:
                assert (error.code, error.detail) == ERRORS[503]
                break
            except ConnectionFailed:  # while HAProxy does not know it yet
                pass


def test_the_details_are_those_of_the_service() -> None:
    assert (rpc_errors.DOMAIN, rpc_errors.CODES[503].value[0]) == (DOMAIN, UNAVAILABLE)


def test_before_there_is_an_application_no_path_is_unknown(tmp_path: Path) -> None:
    http, rpc = free_ports(2)
    path = configuration(tmp_path, http, 1, rpc=rpc)
    text = re.sub(r"(?m)^ +(use_backend|default_backend) (HTTP|gRPC).*\n", "", path.read_text())
    empty = "\nbackend default_grpc_backend\n    mode http\n    http-request return status 200\n"
    path.write_text(text.replace("\nbackend gRPC", f"{empty}backend gRPC"))
    process = subprocess.Popen([BINARY, "-db", "-f", str(path)])
    try:
        wait_for(http, process)
        response = httpx.get(f"http://127.0.0.1:{http}/models", headers={REQUEST_ID: "mine"})
        document(response, *ERRORS[503], "mine")
    finally:
        process.terminate()
        process.wait()


def test_a_request_without_an_id_gets_one(front: str) -> None:
    response = httpx.post(f"{front}/solve", content=BODY, timeout=None)
    assert response.json()["request_id"] == response.headers[REQUEST_ID]
    assert len(response.headers[REQUEST_ID]) > 30


def test_nothing_but_the_two_front_ends_listens_on_the_network(tmp_path: Path) -> None:
    text = mended(configuration(tmp_path, 1, 2).read_text())
    binds = [line.split()[1] for line in text.splitlines() if line.lstrip().startswith("bind ")]
    inside = [f"unix@{tmp_path}/{protocol}" for protocol in ("http", "grpc")]
    assert [one for one in binds if not one.startswith("127.0.0.1:")] == inside
    assert len(binds) == 4
    assert "mode 600" in text
    assert "mode 666" not in text
    assert not [line for line in text.splitlines() if line.split()[:2] == ["log", "127.0.0.1:514"]]


def test_many_calls_on_few_connections_leave_room_for_others(
    tmp_path: Path, ingress: Ingress
) -> None:
    (port,) = free_ports(1)
    with (
        rpc_ingress(port, b"", held=SOLVE) as held,
        front_of(tmp_path, ingress.port, for_rpc=port, files=1024) as (url, rpc),
        ExitStack() as stack,
    ):
        assert "maxconn 85\n" in (tmp_path / "haproxy.cfg").read_text()
        calls = []
        for _ in range(4):
            own = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.insecure_channel(rpc.removeprefix("grpc://"), own)
            solve = stack.enter_context(channel).unary_unary(SOLVE)
            calls += [solve.future(b"") for _ in range(100)]
        assert held.stdout is not None
        for _ in range(85):
            assert held.stdout.readline() == f"{SOLVE}\n"
        assert httpx.get(f"{url}/models", timeout=None).status_code == 200
        held.kill()
        assert held.stdout.read() == ""


def test_a_reload_takes_over_without_a_request_lost(tmp_path: Path, ingress: Ingress) -> None:
    http, rpc = free_ports(2)
    path = configuration(tmp_path, http, ingress.port, rpc=rpc)
    command = [BINARY, "-db", "-f", str(path)]
    first = subprocess.Popen(command)
    wait_for(http, first)
    with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=None) as kept:
        assert kept.get("/models").status_code == 200
        # As Serve does it.
        taking = ["-sf", str(first.pid), "-x", str(tmp_path / "admin.sock")]
        configuration(tmp_path, http, ingress.port, rpc=rpc)
        second = subprocess.Popen([*command, *taking])
        try:
            for _ in range(50):
                assert kept.get("/models").status_code == 200
                assert httpx.get(f"{kept.base_url}/models", timeout=None).status_code == 200
            assert first.wait() == 0
            assert kept.get("/models").status_code == 200
        finally:
            second.terminate()
            second.wait()


def test_a_configuration_without_what_is_mended_is_refused() -> None:
    with pytest.raises(SystemExit, match="maxconn"):
        mended("global\n    stats socket /a/b mode 600\n")


@pytest.mark.parametrize(("host", "address"), [("::1", "[::1]"), ("::", "127.0.0.1")])
def test_it_listens_where_it_is_told_to(
    tmp_path: Path, ingress: Ingress, host: str, address: str
) -> None:
    http, rpc = free_ports(2)
    path = configuration(tmp_path, http, ingress.port, rpc=rpc)
    process = subprocess.Popen(
        [BINARY, "-db", "-f", str(path)], env={**os.environ, FRONT_HOST: host}
    )
    try:
        wait_for(http, process, address.strip("[]"))
        response = httpx.post(f"http://{address}:{http}/jobs", content=BODY, timeout=None)
        assert response.status_code == 503
    finally:
        process.terminate()
        process.wait()


def test_haproxy_ends_with_the_process_that_started_it(tmp_path: Path, ingress: Ingress) -> None:
    (http,) = free_ports(1)
    path = configuration(tmp_path, http, ingress.port)
    start = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen(sys.argv[1:])\n"
        "print(one.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, BINARY, "-db", "-f", str(path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(http, parent)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while alive(child):
        time.sleep(0.05)

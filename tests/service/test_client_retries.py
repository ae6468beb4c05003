"""When the clients ask again: against servers that fail first, over real sockets and channels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest

from service.client import (
    NO_RETRIES,
    AccessDenied,
    AnswerUnreadable,
    AsyncEqrClient,
    ClientError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    EqrClient,
    InvalidInput,
    NotFound,
    RequestUnsendable,
    Retries,
    ServiceError,
    ServiceFault,
    StreamBroken,
    TimedOut,
    TooManyRequests,
    Unavailable,
    rest,
)
from service.client.calls import stream_call
from service.client.errors import FellBehind, problem_of, service_error
from service.client.events import Event, EventReader
from service.client.retries import is_passing
from service.client.rpc import error_of
from service.client.rpc_messages import rows_of
from service.codes import TITLES
from service.messages import event_message
from service.orders import order_of
from service.problems import Refusal
from service.rpc_errors import status_of
from service.schemas import JobAnswer, ProgressAnswer, SolveAnswer, SolveBody
from service.sse import event_bytes
from service.stubs import solver_pb2 as pb
from service.stubs.solver_pb2_grpc import SolverServicer, add_SolverServicer_to_server
from tests.service.orders import FOUR, answer

SOON = {"Retry-After": "0"}
AT_ONCE = Retries(attempts=4, first_seconds=0.0)
JOB = JobAnswer.model_validate(
    {
        "id": "j",
        "state": "queued",
        "progress": {"done": 0, "total": 1},
        "created_at": "2026-01-01T00:00:00Z",
    }
)
PROGRESS = ProgressAnswer(iteration=1, residual=0.5, grid=[[1, 2, 3, 4]] * 4, text="1234" * 4)
ANSWER = answer(order_of(SolveBody(grid=FOUR), 1000.0))


class Flaky:
    """Refuses what it is asked, one refusal after the other, then answers."""

    def __init__(self, refusals: list[Refusal | str]) -> None:
        self.refusals = refusals
        self.keys: list[str] = []
        self.ids: list[str] = []

    def next(self, key: str, made_id: str) -> Refusal | str | None:
        self.keys.append(key)
        self.ids.append(made_id)
        return self.refusals.pop(0) if self.refusals else None


@pytest.fixture
def flaky() -> Flaky:
    return Flaky([])


@pytest.fixture
def http(flaky: Flaky) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            end = flaky.next(self.headers["Idempotency-Key"] or "", self.headers["X-Request-Id"])
            if end == "hang up":
                self.close_connection = True
                return
            if self.path == "/solve/stream":
                self.send_events(end)
                return
            if end == "bad gateway":
                status, headers, body = 502, {}, b"<html>nobody there</html>"
            elif isinstance(end, Refusal):
                document = end.document(self.headers["X-Request-Id"])
                status, headers = end.status, end.headers
                body = document.model_dump_json().encode()
            else:
                status, headers, body = 202, {}, JOB.model_dump_json().encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def send_events(self, end: Refusal | str | None) -> None:
            sent = [event_bytes("progress", PROGRESS)]
            if end is None:
                sent.append(event_bytes("result", ANSWER))
            elif isinstance(end, Refusal):
                sent.append(event_bytes("error", end.document(self.headers["X-Request-Id"])))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in sent:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            if end == "fall silent":
                self.rfile.read()  # until the client leaves
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fail(context: Any, end: Refusal | str | None, made_id: str) -> None:
    """End the call as `end` says, if it says so."""
    if isinstance(end, Refusal):
        status = status_of(end, made_id)
        context.set_trailing_metadata(status.trailing)
        context.abort(status.code, status.message)
    elif end is not None:
        context.abort(grpc.StatusCode.UNAVAILABLE, end)


@pytest.fixture
def rpc(flaky: Flaky) -> Iterator[str]:
    class Servicer(SolverServicer):
        def SubmitJob(self, request: Any, context: Any) -> Any:  # noqa: N802
            made_id = dict(context.invocation_metadata())["x-request-id"]
            end = flaky.next(request.idempotency_key, made_id)
            fail(context, end, made_id)
            job = pb.Job(id="j", state=pb.JOB_STATE_QUEUED, total=1)
            return pb.SubmitJobResponse(job=job)

        def SolveStream(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
            made_id = dict(context.invocation_metadata())["x-request-id"]
            end = flaky.next("", made_id)
            if end != "hang up":
                yield event_message(PROGRESS)
            fail(context, end, made_id)
            yield event_message(ANSWER)

    server = grpc.server(ThreadPoolExecutor(2))
    add_SolverServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(params=["http", "rpc"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_what_passes_is_tried_again_under_one_key(flaky: Flaky, address: str) -> None:
    flaky.refusals = [Refusal("queue_full", "later", headers=SOON), "hang up"]
    with EqrClient(address, retries=AT_ONCE) as client:
        assert client.submit(["1"]).id == "j"
    assert len(flaky.keys) == 3
    assert len(set(flaky.keys)) == len(set(flaky.ids)) == 1
    assert len(flaky.keys[0]) == 32


def test_the_same_awaited(flaky: Flaky, address: str) -> None:
    flaky.refusals = ["hang up", Refusal("not_ready", "later", headers=SOON)]

    async def ask() -> None:
        async with AsyncEqrClient(address, retries=AT_ONCE) as client:
            assert (await client.submit(["1"], idempotency_key="mine")).id == "j"

    asyncio.run(ask())
    assert flaky.keys == 3 * ["mine"]


def test_a_stream_that_breaks_is_asked_for_again(flaky: Flaky, address: str) -> None:
    async def ask() -> list[Event]:
        async with AsyncEqrClient(address, retries=AT_ONCE) as client:
            return [event async for event in client.stream(FOUR)]

    def texts(events: list[Event]) -> list[str]:
        return [type(event).__name__ for event in events]

    told = ["ProgressAnswer", "ProgressAnswer", "SolveAnswer"]
    for end in ("break off", Refusal("draining", "soon", headers=SOON)):
        flaky.refusals = ["hang up", end]
        with EqrClient(address, retries=AT_ONCE) as client:
            assert texts(list(client.stream(FOUR))) == told
        flaky.refusals = ["hang up", end]
        assert texts(asyncio.run(ask())) == told
    assert len(flaky.ids) == 12
    flaky.refusals = [Refusal("internal_error", "no")]
    with EqrClient(address, retries=AT_ONCE) as client, pytest.raises(ServiceFault):
        list(client.stream(FOUR))
    assert len(flaky.ids) == 13


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("INTERNAL", "Received RST_STREAM with error code 2", StreamBroken),
        ("INTERNAL", "a fault", AnswerUnreadable),
        ("RESOURCE_EXHAUSTED", "Received RST_STREAM with error code 11", AnswerUnreadable),
        ("CANCELLED", "Received RST_STREAM with error code 8", StreamBroken),
    ],
)
def test_a_stream_that_a_proxy_resets_is_broken(code: str, details: str, kind: Any) -> None:
    status = grpc.StatusCode[code]
    error = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    call = stream_call(FOUR, {})
    assert type(error_of(error, "grpc://RST_STREAM", call, StreamBroken)) is kind


def test_a_stream_that_breaks_has_an_error_of_its_own(flaky: Flaky, address: str) -> None:
    flaky.refusals = ["hang up", "break off"]
    with EqrClient(address, retries=NO_RETRIES) as client:
        with pytest.raises(ConnectionFailed) as caught:
            next(client.stream(FOUR))
        assert not isinstance(caught.value, StreamBroken)
        events = client.stream(FOUR)
        assert isinstance(next(events), ProgressAnswer)
        with pytest.raises(StreamBroken):
            next(events)


def test_a_stream_that_falls_silent_is_broken(
    flaky: Flaky, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "SILENT_SECONDS", 0.2)
    flaky.refusals = ["fall silent"]
    with EqrClient(http, retries=NO_RETRIES) as client, pytest.raises(StreamBroken):
        list(client.stream(FOUR, timeout=60))
    flaky.refusals = ["fall silent"]
    with EqrClient(http, retries=NO_RETRIES) as client, pytest.raises(TimedOut):
        list(client.stream(FOUR, timeout=0.1))

    async def ask() -> list[Event]:
        async with AsyncEqrClient(http, retries=AT_ONCE) as client:
            return [event async for event in client.stream(FOUR)]

    flaky.refusals = ["fall silent"]
    *_, last = asyncio.run(ask())
    assert isinstance(last, SolveAnswer)


def test_attempts_come_to_an_end(flaky: Flaky, address: str) -> None:
    flaky.refusals = [Refusal("queue_full", "later", headers=SOON) for _ in range(9)]
    with EqrClient(address, retries=AT_ONCE) as client, pytest.raises(TooManyRequests):
        client.submit(["1"])
    assert len(flaky.keys) == 4
    with EqrClient(address, retries=NO_RETRIES) as client, pytest.raises(TooManyRequests):
        client.submit(["1"])
    assert len(flaky.keys) == 5


@pytest.mark.parametrize("code", ["internal_error", "invalid_grid", "deadline_exceeded"])
def test_what_does_not_pass_is_tried_once(flaky: Flaky, address: str, code: str) -> None:
    flaky.refusals = [Refusal(code, "no")]
    with EqrClient(address, retries=AT_ONCE) as client, pytest.raises(ServiceError) as caught:
        client.submit(["1"])
    assert caught.value.code == code
    assert len(flaky.keys) == 1


def test_who_shall_come_back_tomorrow_does_not_wait(flaky: Flaky, address: str) -> None:
    flaky.refusals = [Refusal("quota_exceeded", "tomorrow")]
    with EqrClient(address) as client, pytest.raises(TooManyRequests) as caught:
        client.submit(["1"])
    assert caught.value.retry_after == 3600
    assert len(flaky.keys) == 1


def test_there_is_no_attempt_beyond_the_end(flaky: Flaky, address: str) -> None:
    flaky.refusals = [Refusal("draining", "later", headers={"Retry-After": "15"})]
    with EqrClient(address, timeout=10) as client, pytest.raises(Unavailable):
        client.submit(["1"])
    assert len(flaky.keys) == 1


def test_a_load_balancer_without_a_service_is_tried_again(flaky: Flaky, http: str) -> None:
    flaky.refusals = ["bad gateway"]
    with EqrClient(http, retries=AT_ONCE) as client:
        assert client.submit(["1"]).id == "j"
    flaky.refusals = ["bad gateway"]
    with EqrClient(http, retries=NO_RETRIES) as client, pytest.raises(AnswerUnreadable) as caught:
        client.submit(["1"])
    assert caught.value.status == 502


def test_the_pause_grows_and_honours_what_was_asked() -> None:
    retries = Retries(attempts=10, first_seconds=1.0, longest_seconds=8.0)
    broken = ConnectionFailed("")
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        pauses = [retries.pause(broken, attempt) or 0.0 for _ in range(200)]
        assert max(pauses) <= most
        assert max(pauses) - min(pauses) > most / 2
    full = service_error(problem_of("queue_full", "", ""), 3.0)
    assert all(3.0 <= (retries.pause(full, 1) or 0.0) <= 4.0 for _ in range(50))
    assert retries.pause(broken, 10) is None
    assert retries.pause(TimedOut(""), 1) is None
    for name, value in (
        ("attempts", 0),
        ("first_seconds", -1.0),
        ("longest_seconds", float("inf")),
    ):
        with pytest.raises(ValueError, match=name):
            Retries(**{name: value})  # type: ignore[arg-type]


def test_every_code_has_its_error() -> None:
    kinds = {
        "malformed_json": InvalidInput,
        "unauthenticated": AccessDenied,
        "not_local": AccessDenied,
        "unknown_job": NotFound,
        "slow_reader": FellBehind,
        "idempotency_conflict": Conflict,
        "rate_limited": TooManyRequests,
        "store_unavailable": Unavailable,
        "deadline_exceeded": DeadlineExceeded,
        "internal_error": ServiceFault,
        "of_a_later_version": ServiceFault,
    }
    for code, kind in kinds.items():
        assert type(service_error(problem_of(code, "", ""))) is kind
    statuses = {status.value for status, _ in TITLES.values()}
    final = {s for s in statuses if not is_passing(service_error(_with_status(s)))}
    assert statuses - final == {429, 503}


def _with_status(status: int) -> Any:
    return problem_of("x", "", "").model_copy(update={"status": status})


@pytest.mark.parametrize(
    "server", ["grpc://", "grpc://a b:1", "grpc://a:1/path", "grpcs://a:1?x", "http://[::1"]
)
@pytest.mark.parametrize("kind", [EqrClient, AsyncEqrClient])
def test_an_address_that_is_none_is_told(kind: Any, server: str) -> None:
    with pytest.raises(RequestUnsendable, match="no address"):
        kind(server)


def test_a_key_that_no_header_can_hold_is_not_shown() -> None:
    for key in ("", "secret\r\nX: y", "sécret"):
        with pytest.raises(RequestUnsendable) as caught:
            EqrClient("http://127.0.0.1", api_key=key)
        assert "cret" not in str(caught.value)


def test_what_json_cannot_say_is_told_both_ways() -> None:
    for server in ("http://127.0.0.1:9", "grpc://127.0.0.1:9"):
        with EqrClient(server) as client, pytest.raises(RequestUnsendable, match="JSON"):
            client.solve("1" * 16, noise=float("nan"))
        with EqrClient(server) as client, pytest.raises(RequestUnsendable, match="list of grids"):
            client.solve_batch("1" * 16)


def test_a_timeout_that_is_none_is_refused() -> None:
    with EqrClient("http://127.0.0.1:9") as client, pytest.raises(ValueError, match="timeout"):
        client.solve("1", timeout=0)


def test_events_are_read_however_they_are_cut() -> None:
    progress = ProgressAnswer(iteration=3, residual=None, grid=[[1]], text="\u2028x")
    one = f"event: progress\ndata: {progress.model_dump_json()}\n\n".encode()
    stream = b": alive\n\n" + one + one
    for size in (1, 7, len(stream)):
        reader = EventReader()
        found = [
            event
            for start in range(0, len(stream), size)
            for event in reader.feed(stream[start : start + size])
        ]
        assert found == [progress, progress]
        assert not reader.ended
    for strange in (b"event: progress\ndata: {}\n\n", b"event: other\ndata: 1\n\n", b"<html>\n\n"):
        with pytest.raises(AnswerUnreadable):
            list(EventReader().feed(strange))
    problem = problem_of("not_ready", "gone", "id").model_dump_json().encode()
    with pytest.raises(Unavailable):
        list(EventReader().feed(b"event: error\ndata: " + problem + b"\n\n"))


def test_errors_are_of_one_family() -> None:
    assert issubclass(TimedOut, ConnectionFailed)
    assert issubclass(ServiceError, ClientError)


@pytest.mark.parametrize("key", ["", "a b", "é", 256 * "k"])
def test_an_idempotency_key_that_is_none_is_not_sent(flaky: Flaky, http: str, key: str) -> None:
    with EqrClient(http) as client, pytest.raises(RequestUnsendable, match="idempotency_key is"):
        client.solve("1...", idempotency_key=key)
    assert not flaky.keys


@pytest.mark.parametrize(
    ("text", "rows"),
    [("S #G", ["S #G"]), ("##/SG", ["##", "SG"]), ("12.1", [[1, 2], [0, 1]])],
)
def test_rows_of_a_text_are_those_of_its_task(text: str, rows: list[str] | list[list[int]]) -> None:
    assert [list(row) for row in rows_of(text)] == [list(row) for row in rows]

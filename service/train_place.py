"""Where a training job runs and where its checkpoints go: a Ray cluster and a storage."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs
import ray
import torch

from eqr_core.errors import EqrError

OBJECT_STORE_BYTES = 200 * 2**20
REACH_SECONDS = 30.0
CHECKPOINTS = "checkpoint_"
"""What the names of Ray Train's checkpoints begin with."""


class TrainJobError(EqrError):
    """A job that cannot be run as asked (exit code 2), or that failed (1)."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def holds_run(storage: str, name: str) -> bool:
    """Whether the storage, an absolute path or a URI, has a run of that name to go on from.

    TrainJobError where nothing can be written there.
    """
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(storage)
        folder, marker = f"{path}/{name}", f"{path}/{name}/.{uuid.uuid4().hex}"
        files.create_dir(folder, recursive=True)
        with files.open_output_stream(marker):
            pass
        files.delete_file(marker)
        found = files.get_file_info(pyarrow.fs.FileSelector(folder))
    except (OSError, ValueError, NotImplementedError) as error:
        raise TrainJobError(f"storage {storage} cannot be written: {error}") from None
    return any(one.base_name.startswith(CHECKPOINTS) for one in found)


@contextmanager
def cluster(workers: int, gpus: bool) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names; without one a Ray of this machine, for this job alone.

    TrainJobError where it has too little for the job. Within, SIGTERM is as good as Ctrl-C.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        _connect(workers, gpus)
        # Ray has put a handler of its own there, which aborts the process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        resources: Any = ray.cluster_resources
        there = resources()
        _check_gpus(workers, gpus, int(there.get("GPU", 0)), "the cluster")
        cpus = there.get("CPU", 0)
        if cpus < workers:
            raise TrainJobError(f"{workers} workers need a CPU each; the cluster has {cpus:g}")
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _connect(workers: int, gpus: bool) -> None:
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            _reach(address)
            ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise TrainJobError(f"no Ray at RAY_ADDRESS, {address}: {why}", 1) from None
        return
    _check_gpus(workers, gpus, torch.cuda.device_count(), "this machine")
    if sys.platform == "linux":  # as nothing of this Ray listens elsewhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ray.init(
        "local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


def _reach(address: str) -> None:
    """OSError where nothing listens at HOST:PORT; Ray would try for minutes."""
    if address.startswith("ray://"):
        raise ValueError("a Ray client cannot train; run the command on the cluster")
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


def _check_gpus(workers: int, gpus: bool, found: int, where: str) -> None:
    if gpus and found < workers:
        raise TrainJobError(f"{workers} workers need a GPU each; {where} has {found}")

"""What the processes of a running service use: processor time and memory, by what they are."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

TITLES = {
    "solver": "ray::ServeReplica:eqr:Solver",
    "ingress": "ray::ServeReplica:eqr:Ingress",
    "controller": "ray::ServeController",
    "worker": "ray::run_shard",
}
"""How the commands of the service's processes begin; a worker is one while it runs a shard."""


@dataclass(frozen=True)
class Usage:
    """Of all processes of one kind: seconds of processor time so far, bytes of memory now.

    Memory is each process's own and its share of what it shares with others.
    """

    processes: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum of both."""
        return Usage(
            self.processes + other.processes,
            self.cpu_seconds + other.cpu_seconds,
            self.memory_bytes + other.memory_bytes,
        )


def find(service: int, kind: str) -> list[int]:
    """Ids of the processes of a kind below process `service`, the oldest first."""
    found = [one for one in _family(service) if _kind(one) == kind]
    return [one.pid for one in sorted(found, key=psutil.Process.create_time)]


def usage(service: int) -> dict[str, Usage]:
    """What process `service` and all below it use, by kind; ``ray`` is Ray's other processes."""
    found: dict[str, Usage] = defaultdict(Usage)
    for process in _family(service):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            times = process.cpu_times()
            memory = int(process.memory_full_info().pss)
            found[_kind(process)] = found[_kind(process)].plus(
                Usage(1, times.user + times.system, memory)
            )
    return dict(found)


def spent(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Seconds of processor time between two `usage`s, by kind."""
    return {
        kind: used.cpu_seconds - before.get(kind, Usage()).cpu_seconds
        for kind, used in after.items()
    }


def _family(service: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(service)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kind(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    title = " ".join(command)
    for kind, beginning in TITLES.items():
        if title.startswith(beginning):
            return kind
    if "valkey-server" in title:
        return "store"
    if "/haproxy -db" in title:
        return "haproxy"
    if title.startswith("ray::") or "/ray/" in title:
        return "ray"
    return "serve"

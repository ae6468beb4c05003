"""Process start to first answer, in processes of their own."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from eqr_core.bench.workload import Workload
from eqr_core.errors import EqrError

REPEATS = 3
SCRIPT = """
import sys
from eqr_core import Budget, Solver
solver = Solver.load(sys.argv[1])
print(solver.solve(sys.argv[2], Budget(depth=64, breadth=1)).text)
"""
NO_COMPILER = {"CXX": "no-such-compiler"}
"""Without a compiler there are no native kernels, whether they were built before or not."""


@dataclass(frozen=True)
class Start:
    """Median seconds from process start to the process' end with one answer printed."""

    wall: float
    cpu: float
    """Of all its threads and children."""


def measure_starts(workload: Workload) -> dict[str, Start]:
    """`again`: as any start but a machine's first; `eager`: plain torch. In turns.

    EqrError when a process fails.
    """
    puzzle = min(workload.puzzles, key=lambda puzzle: puzzle.rating)
    text = puzzle.task.text(puzzle.grid)
    arguments = [str(workload.checkpoint), text]
    _run(arguments, {})
    environments: dict[str, Mapping[str, str]] = {"again": {}, "eager": NO_COMPILER}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in environments}
    for _ in range(REPEATS):
        for name, environment in environments.items():
            seen[name].append(_run(arguments, environment))
    return {
        name: Start(*(statistics.median(column) for column in zip(*times, strict=True)))
        for name, times in seen.items()
    }


def _run(arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    begin, before = time.perf_counter(), _children()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EqrError(f"a process that solves one puzzle failed: {last}")
    return time.perf_counter() - begin, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

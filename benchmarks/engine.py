"""Solves per second of the engine, in this process, at several numbers of concurrent requests.

`python -m benchmarks.engine --help`. The puzzles are minimal 9×9 ones made from a fixed seed.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from eqr_core.data.generate import generate_sudoku
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.tasks import parse_grid
from eqr_core.tasks.sudoku import Sudoku

PUZZLES = 100


def main(
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests in flight.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 20.0,
    depth: Annotated[int, typer.Option(help="Outer steps of a trajectory at most.")] = 64,
    breadth: Annotated[int, typer.Option(help="Trajectories of a request at most.")] = 1,
    slots: Annotated[int, typer.Option(help="Trajectories that run together.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the engine with a constant number of requests in flight."""
    rows = generate_sudoku(Sudoku(), PUZZLES, seed=0)
    grids = [parse_grid(row.question) for row in rows]
    begin = time.perf_counter()
    engine = Engine([model], slots=slots)
    loaded = time.perf_counter() - begin
    budget, name = Budget(depth=depth, breadth=breadth), next(iter(engine.models))
    line = (
        SolveRequest(task=task, grid=grid, model=name, budget=budget) for task, grid in cycle(grids)
    )
    engine.solve([next(line)])
    document: dict[str, Any] = {
        "model": model,
        "depth": depth,
        "breadth": breadth,
        "slots": slots,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "load_seconds": loaded,
        "first_answer_seconds": time.perf_counter() - begin,
        "runs": [measure(engine, line, count, seconds) for count in concurrency or [1, 64]],
        # Linux counts it in KiB.
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(document)


def measure(
    engine: Engine, line: Iterator[SolveRequest], concurrency: int, seconds: float
) -> dict[str, Any]:
    """Keep `concurrency` requests in flight for `seconds`; those in flight at the end go on."""
    for _ in range(concurrency):
        engine.submit(next(line))
    answers: list[Answer] = []
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds or not answers:
        ended = engine.step()
        answers += ended
        for _ in ended:
            engine.submit(next(line))
    while engine.busy:
        engine.step()
    latencies = [answer.queue_seconds + answer.solve_seconds for answer in answers]
    return {
        "concurrency": concurrency,
        "solves": len(answers),
        "seconds": spent,
        "solves_per_second": len(answers) / spent,
        "outer_steps_per_second": sum(answer.nfe for answer in answers) / spent,
        "median_ms": 1000 * statistics.median(latencies),
        "slowest_ms": 1000 * max(latencies),
        "converged": sum(answer.converged for answer in answers) / len(answers),
        "verified": sum(answer.verified for answer in answers) / len(answers),
    }


def show(document: dict[str, Any]) -> None:
    """The document as a table, a column for each number of requests in flight."""
    runs = document["runs"]
    table = Table("", *(str(run["concurrency"]) for run in runs), title="requests in flight")
    for name in runs[0]:
        if name != "concurrency":
            table.add_row(name, *(f"{run[name]:,.4g}" for run in runs))
    console = Console()
    for name, value in document.items():
        if name != "runs":
            console.print(f"{name}: {value}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

"""What the service costs over the bare engine: `python -m benchmarks.overhead --help`.

Everything in one run and in turns, on the same puzzles with the same seeds: the engine in this
process, the service, the engine again. Nothing else should run on the machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.local import Service, local_service
from benchmarks.processes import spent, usage
from eqr_core.bench.adaptive import run_adaptive, warm_up
from eqr_core.bench.workload import Workload
from eqr_core.cli import options
from eqr_core.cli.bench import activity
from eqr_core.cli.group import Commands
from eqr_core.data.benchmark import find_puzzles
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.evaluation.rows import read_rows
from service.client import NO_RETRIES, AsyncEqrClient, EqrClient
from service.schemas import SolveAnswer
from service.settings import usable_cpus

SOLVE_BAR, BATCH_BAR, ADDED_BAR_MS = 0.9, 0.95, 10.0


@dataclass(frozen=True)
class Round:
    """All puzzles once: puzzles a second by the clock, and what was answered, in their order.

    `cpu_ms` is processor time a puzzle by kind of process, ``client`` this one's.
    """

    rate: float
    texts: list[str]
    nfe: int
    cpu_ms: dict[str, float]


app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    data: Annotated[Path, typer.Option(help="Puzzle file; benchmark is ours.")] = Path("benchmark"),
    limit: Annotated[int, typer.Option(help="The first puzzles of the file.", min=1, max=256)] = (
        256
    ),
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    concurrency: Annotated[int, typer.Option(help="Requests in flight.", min=1)] = 64,
    alone: Annotated[int, typer.Option(help="Puzzles asked one at a time.", min=1)] = 100,
    cpus: Annotated[int | None, typer.Option(help="Threads of the engine and solver.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure throughput and latency against the engine's own; exit 1 where a bar is missed, or an
    answer is not the engine's.
    """
    threads = cpus or usable_cpus()
    torch.set_num_threads(threads)
    workload = Workload.of(model, read_rows(find_puzzles(data), limit))
    budget = Budget(depth, breadth)
    flags = ["--models", str(workload.checkpoint), "--cpus", str(threads)]
    with activity() as note:
        note("the service starts")
        with local_service(*flags) as service:
            document = _measure(workload, budget, service, concurrency, alone, note)
    document = {"threads": threads, "depth": depth, "breadth": breadth, **document}
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(document, Console())
    same = all(row["same_answers"] for row in document["rounds"])
    if not (same and all(row["reached"] for row in document["bars"])):
        raise typer.Exit(1)


def _measure(
    workload: Workload,
    budget: Budget,
    service: Service,
    concurrency: int,
    alone: int,
    note: Callable[[str], None],
) -> dict[str, Any]:
    slots = 2 * concurrency
    asked: dict[str, Callable[[], Round]] = {
        "solve over REST": lambda: _solves(workload, budget, service, service.rest, concurrency),
        "solve over gRPC": lambda: _solves(workload, budget, service, service.grpc, concurrency),
        "batch over REST": lambda: _batch(workload, budget, service, service.rest),
        "batch over gRPC": lambda: _batch(workload, budget, service, service.grpc),
    }
    in_flight = {name: slots if "batch" in name else concurrency for name in asked}
    bars, rows = [], []
    for name, ask in asked.items():
        note(f"engine, then {name}")
        before = _bare(workload, budget, in_flight[name])
        served = ask()
        note(f"{name}, then engine")
        after = _bare(workload, budget, in_flight[name])
        bare = (before.rate + after.rate) / 2
        bar = BATCH_BAR if "batch" in name else SOLVE_BAR
        bars.append(_bar(name, served.rate / bare, bar, served.rate / bare >= bar))
        rows.append(
            {
                "name": name,
                "puzzles_per_second": served.rate,
                "engine_per_second": [before.rate, after.rate],
                # Not NFE: how far a wave's others came when one won depends on the load.
                "same_answers": served.texts == before.texts,
                "nfe": [before.nfe, served.nfe, after.nfe],
                "cpu_ms": served.cpu_ms,
                "engine_cpu_ms": before.cpu_ms["client"],
            }
        )
    note("one at a time, in turns")
    latency = _alone(workload, budget, service, alone)
    for way in ("REST", "gRPC"):
        added = latency[way]["added_ms"]
        bars.append(_bar(f"added by {way}, p50 ms", added, ADDED_BAR_MS, added <= ADDED_BAR_MS))
    return {"bars": bars, "rounds": rows, "latency_ms": latency}


def _bar(name: str, found: float, bar: float, reached: bool) -> dict[str, Any]:
    return {"name": name, "found": found, "bar": bar, "reached": reached}


def _bare(workload: Workload, budget: Budget, in_flight: int) -> Round:
    """The engine in this process. Its slots are those of the service's default."""
    run = run_adaptive(workload, budget, in_flight, slots=64)
    count = len(run.answers)
    cpu = 1e3 * run.clock.cpu * torch.get_num_threads() / count
    texts = [answer.text for answer in run.answers]
    nfe = sum(answer.nfe for answer in run.answers)
    return Round(count / run.clock.wall, texts, nfe, {"client": cpu})


def _body(workload: Workload, budget: Budget, number: int) -> dict[str, Any]:
    """What is asked of the service for puzzle `number`; kept answers would measure the cache."""
    limits = {"depth": budget.depth, "breadth": budget.breadth, "deadline_ms": 3.6e6}
    puzzle = workload.puzzles[number]
    grid = puzzle.task.text(puzzle.grid)
    return {"grid": grid, "budget": limits, "seed": number, "cache": False}


def _solves(
    workload: Workload, budget: Budget, service: Service, address: str, concurrency: int
) -> Round:
    async def run(client: AsyncEqrClient) -> list[SolveAnswer]:
        numbers, answers = iter(range(len(workload.puzzles))), {}

        async def worker() -> None:
            for number in numbers:
                answers[number] = await client.solve(**_body(workload, budget, number))

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return [answers[number] for number in sorted(answers)]

    return asyncio.run(_timed(service, address, run))


def _batch(workload: Workload, budget: Budget, service: Service, address: str) -> Round:
    async def run(client: AsyncEqrClient) -> list[SolveAnswer]:
        bodies = [_body(workload, budget, number) for number in range(len(workload.puzzles))]
        ends = await client.solve_batch(bodies)
        return [end.answer for end in ends if end.answer is not None]

    return asyncio.run(_timed(service, address, run))


async def _timed(
    service: Service,
    address: str,
    run: Callable[[AsyncEqrClient], Awaitable[list[SolveAnswer]]],
) -> Round:
    async with AsyncEqrClient(address, retries=NO_RETRIES) as client:
        await client.models()  # the connection, and what is imported once
        before, own = usage(service.pid), time.process_time()
        begin = time.perf_counter()
        answers = await run(client)
        seconds = time.perf_counter() - begin
        cpu = {"client": time.process_time() - own, **spent(before, usage(service.pid))}
    return Round(
        len(answers) / seconds,
        [answer.text for answer in answers],
        sum(answer.nfe for answer in answers),
        {kind: 1e3 * used / len(answers) for kind, used in cpu.items()},
    )


def _alone(workload: Workload, budget: Budget, service: Service, count: int) -> dict[str, Any]:
    """Each puzzle by the engine here, over REST and over gRPC, in turns: medians in ms.

    `added_ms` is the median of what each puzzle took longer than in this process.
    """
    engine = Engine([workload.checkpoint], slots=64)
    numbers = range(min(count, len(workload.puzzles)))
    requests = [
        SolveRequest(puzzle.task, puzzle.grid, workload.card.name, budget, seed=number)
        for number, puzzle in zip(numbers, workload.puzzles, strict=False)
    ]
    engine.solve([warm_up(requests[0])])
    times: dict[str, list[float]] = {"engine": [], "REST": [], "gRPC": []}
    with (
        EqrClient(service.rest, retries=NO_RETRIES) as rest,
        EqrClient(service.grpc, retries=NO_RETRIES) as rpc,
    ):
        for client in (rest, rpc):
            client.solve(**_body(workload, budget, 0))
        for number in numbers:
            body = _body(workload, budget, number)
            asks: dict[str, Callable[[], object]] = {
                "engine": lambda one=requests[number]: engine.solve([one]),  # type: ignore[misc]
                "REST": lambda body=body: rest.solve(**body),  # type: ignore[misc]
                "gRPC": lambda body=body: rpc.solve(**body),  # type: ignore[misc]
            }
            for name, ask in asks.items():
                begin = time.perf_counter()
                ask()
                times[name].append(1e3 * (time.perf_counter() - begin))
    found: dict[str, Any] = {"engine": {"p50": statistics.median(times["engine"])}}
    for way in ("REST", "gRPC"):
        more = [served - bare for served, bare in zip(times[way], times["engine"], strict=True)]
        found[way] = {"p50": statistics.median(times[way]), "added_ms": statistics.median(more)}
    return found


def _show(document: dict[str, Any], console: Console) -> None:
    bars = Table("", "found", "bar", "", title="the service over the engine", title_justify="left")
    for row in document["bars"]:
        reached = "[green]reached" if row["reached"] else "[red]missed"
        bars.add_row(row["name"], f"{row['found']:.3g}", f"{row['bar']:g}", reached)
    console.print(bars)
    kinds = list(dict.fromkeys(kind for row in document["rounds"] for kind in row["cpu_ms"]))
    title = "milliseconds of processor time a puzzle"
    table = Table("", "puzzles/s", "engine's", *kinds, title=title, title_justify="left")
    for row in document["rounds"]:
        engines = " ".join(f"{rate:.1f}" for rate in row["engine_per_second"])
        used = (f"{row['cpu_ms'].get(kind, 0.0):.1f}" for kind in kinds)
        table.add_row(row["name"], f"{row['puzzles_per_second']:.1f}", engines, *used)
    console.print(table)
    if not all(row["same_answers"] for row in document["rounds"]):
        console.print("[red]the service's answers are not the engine's")


if __name__ == "__main__":
    app()

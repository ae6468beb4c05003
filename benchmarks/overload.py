"""Many times the work that a service can do: `python -m benchmarks.overload --help`.

Capacity is measured before and after, in a closed loop. In between requests come at random times at
many times that rate, whatever is answered, while the memory of the service's processes is watched.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.local import Service, local_service
from benchmarks.processes import Usage, spent, usage
from eqr_core.cli import options
from eqr_core.cli.bench import activity
from eqr_core.cli.group import Commands
from eqr_core.engine.budget import Budget
from eqr_core.errors import EqrError
from service.bench.load import Load, Plan
from service.bench.puzzles import draw, parse_mix, read_rows
from service.bench.summary import summarise

GOODPUT_BAR, SHED_BAR_MS, GROWTH_BAR = 0.9, 100.0, 0.05
LONG_MS = 3.6e6
"""Deadline of the requests that measure capacity: all of them are answered in full."""
WATCH_SECONDS = 5.0
SETTLED = 0.25
"""Memory counts as grown over what it was after this share of the overload: buffers fill first."""

Note = Callable[[str], None]

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    seconds: Annotated[float, typer.Option(help="Of overload.", min=5)] = 600.0,
    capacity_seconds: Annotated[float, typer.Option(help="To measure capacity.", min=5)] = 60.0,
    times: Annotated[float, typer.Option(help="Times the capacity that is offered.", min=1)] = 10.0,
    concurrency: Annotated[int, typer.Option(help="Requests in flight for capacity.", min=1)] = 64,
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    mix: Annotated[str | None, typer.Option(help="As of eqr bench serve.")] = None,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    stop: options.Stop = Budget.stop,
    deadline_ms: Annotated[float, typer.Option(help="Of every request; later is no goodput.")] = (
        20_000.0
    ),
    grpc: Annotated[bool, typer.Option(help="Over gRPC instead of REST.")] = False,
    seed: Annotated[int, typer.Option(help="Decides arrivals and puzzles.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Start a service and overload it; exit 1 where a bar is missed."""
    with activity() as note:
        note("the service starts")
        with local_service("--models", model) as service:
            rows, bands = read_rows(Path("benchmark"), None), parse_mix(mix)

            def load(length: float, rate: float | None, deadline: float) -> Load:
                budget = {
                    "depth": depth,
                    "breadth": breadth,
                    "stop": stop,
                    "deadline_ms": deadline,
                }
                plan = Plan(
                    service.grpc if grpc else service.rest,
                    rate=rate,
                    concurrency=concurrency,
                    seconds=length,
                    warm_up_seconds=min(10.0, length / 5),
                    budget=budget,
                    seed=seed,
                )
                return Load(plan, draw(rows, bands, seed))

            note("capacity")
            before = _run(load(capacity_seconds, None, LONG_MS), service, LONG_MS)
            rate = times * before.document["throughput"]
            if not rate:
                raise EqrError(
                    f"no puzzle was answered within {capacity_seconds:g} s of --capacity-seconds: "
                    "this machine wants more of them, or a smaller budget"
                )
            note(f"{rate:.0f} requests a second for {seconds:.0f} s")
            over = _run(load(seconds, rate, deadline_ms), service, deadline_ms)
            note("capacity again")
            after = _run(load(capacity_seconds, None, LONG_MS), service, LONG_MS)
    document = _judge(before, over, after)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(document, Console())
    if not all(bar["reached"] for bar in document["bars"]):
        raise typer.Exit(1)


@dataclass
class Phase:
    """A load, and what the service's processes used while it ran."""

    document: dict[str, Any]
    watched: list[tuple[float, dict[str, Usage]]] = field(default_factory=list)
    """Moments since the load began, in seconds, and usage by kind of process."""
    client_cpu_seconds: float = 0.0

    def megabytes(self, kind: str) -> list[float]:
        """Memory of a kind over time; of ``all`` where that is the kind."""
        return [
            sum(one.memory_bytes for name, one in used.items() if kind in (name, "all")) / 2**20
            for _, used in self.watched
        ]

    def growth(self, kind: str) -> float:
        """Megabytes by which a straight line through the settled part of the load rises."""
        first = int(SETTLED * len(self.watched))
        moments = [moment for moment, _ in self.watched[first:]]
        if len(moments) < 3:
            return float("nan")
        slope = float(np.polyfit(moments, self.megabytes(kind)[first:], 1)[0])
        return slope * (moments[-1] - moments[0])

    @property
    def kinds(self) -> Sequence[str]:
        """Kinds of processes."""
        return sorted({kind for _, used in self.watched for kind in used})


def _run(load: Load, service: Service, slo_ms: float) -> Phase:
    phase = Phase({})

    async def run() -> None:
        watching = asyncio.create_task(_watch(phase, service))
        await load.run(lambda _: None)
        watching.cancel()

    own = time.process_time()
    asyncio.run(run())
    phase.client_cpu_seconds = time.process_time() - own
    phase.document = summarise(load, slo_ms / 1e3)
    return phase


async def _watch(phase: Phase, service: Service) -> None:
    begin = time.monotonic()
    while True:
        used = await asyncio.to_thread(usage, service.pid)
        phase.watched.append((time.monotonic() - begin, used))
        await asyncio.sleep(WATCH_SECONDS)


def _judge(before: Phase, over: Phase, after: Phase) -> dict[str, Any]:
    capacity = (before.document["throughput"] + after.document["throughput"]) / 2
    goodput = over.document["goodput"] / capacity
    shed = (over.document["shed_latency_ms"] or {}).get("p99", float("nan"))
    grown = over.growth("all") / over.megabytes("all")[0]
    return {
        "bars": [
            _bar("goodput over capacity", goodput, GOODPUT_BAR, goodput >= GOODPUT_BAR),
            _bar("sheds, p99 ms", shed, SHED_BAR_MS, shed <= SHED_BAR_MS),
            _bar("memory grown, share", grown, GROWTH_BAR, grown <= GROWTH_BAR),
            _bar("errors", over.document["errors"], 0, not over.document["errors"]),
        ],
        "capacity": [before.document["throughput"], after.document["throughput"]],
        "offered": over.document["rate"],
        "memory_mb": {
            kind: {
                "first": over.megabytes(kind)[0],
                "last": over.megabytes(kind)[-1],
                "grown": over.growth(kind),
            }
            for kind in [*over.kinds, "all"]
        },
        "cpu_seconds": {
            **spent(over.watched[0][1], over.watched[-1][1]),
            "client": over.client_cpu_seconds,
        },
        "overload": over.document,
    }


def _bar(name: str, found: float, bar: float, reached: bool) -> dict[str, Any]:
    return {"name": name, "found": found, "bar": bar, "reached": reached}


def _show(document: dict[str, Any], console: Console) -> None:
    over = document["overload"]
    capacity = " and ".join(f"{rate:.1f}" for rate in document["capacity"])
    title = f"{document['offered']:.0f} requests/s offered; capacity {capacity} puzzles/s"
    bars = Table("", "found", "bar", "", title=title, title_justify="left")
    for bar in document["bars"]:
        reached = "[green]reached" if bar["reached"] else "[red]missed"
        bars.add_row(bar["name"], f"{bar['found']:.3g}", f"{bar['bar']:g}", reached)
    console.print(bars)
    table = Table("", "MB at first", "at last", "grown", "CPU seconds")
    for kind, told in document["memory_mb"].items():
        numbers = (f"{told[name]:.1f}" for name in ("first", "last", "grown"))
        table.add_row(kind, *numbers, f"{document['cpu_seconds'].get(kind, 0.0):.0f}")
    console.print(table)
    client = document["cpu_seconds"]["client"]
    late = (over["send_lag_ms"] or {}).get("p99", 0.0)
    console.print(
        f"{over['answered']} answered, {over['cut']} of them cut by their deadlines, "
        f"{over['shed']} shed, {over['errors']} errors; {over['codes']}; "
        f"the load took {client:.0f} s of CPU and sent late by {late:.0f} ms (p99)"
    )


if __name__ == "__main__":
    app()

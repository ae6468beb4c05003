"""`eqr bench serve`."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from eqr_core.cli import options
from eqr_core.engine.budget import Budget
from service.extras import MissingExtra
from service.key_file import KeyFile, key_in

PATIENCE = 2.0
"""Seconds after which a load that goes on past its end says why."""

Url = Annotated[
    str, typer.Option("--url", help="Address of the service: http://… for REST, grpc://… for gRPC.")
]
Rate = Annotated[
    float | None,
    typer.Option(help="Requests a second, at random times, whatever comes back: an open loop."),
]
Concurrency = Annotated[
    int, typer.Option(help="Requests in flight, where no rate is given.", min=1, max=65536)
]
Seconds = Annotated[float, typer.Option(help="Length of the measurement.", min=0.1, max=86400)]
WarmUp = Annotated[float, typer.Option(help="Seconds of load before it.", min=0, max=3600)]
Endpoint = Annotated[str, typer.Option(help="solve or batch.")]
BatchSize = Annotated[int, typer.Option(help="Puzzles of a batch.", min=1, max=65536)]
Data = Annotated[Path, typer.Option(help="Puzzle file, CSV or CSV.gz; benchmark is ours.")]
Limit = Annotated[int | None, typer.Option(help="The first puzzles of the file only.", min=1)]
Mix = Annotated[
    str | None,
    typer.Option(
        help="Ratings and their weights, such as 0=3,1-30=2,31-=1; else all as they come."
    ),
]
Slo = Annotated[
    float, typer.Option(help="Answers that took longer are no goodput.", min=0.001, max=1e9)
]
ServedModel = Annotated[str | None, typer.Option(help="Name of a served model.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the latencies into this .png or .svg.")]
Seed = Annotated[int, typer.Option(help="Decides arrivals and the order of bands.")]


def serve(
    server: Url = "http://127.0.0.1:8000",
    rate: Rate = None,
    concurrency: Concurrency = 64,
    seconds: Seconds = 30.0,
    warm_up: WarmUp = 2.0,
    endpoint: Endpoint = "solve",
    batch: BatchSize = 64,
    data: Data = Path("benchmark"),
    limit: Limit = None,
    mix: Mix = None,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    nfe: options.Nfe = None,
    deadline_ms: options.DeadlineMs = None,
    stop: options.Stop = Budget.stop,
    slo_ms: Slo = 1000.0,
    model: ServedModel = None,
    api_key_file: KeyFile = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: options.AsJson = False,
) -> None:
    """Load a running service and measure it: throughput, latency, goodput, sheds, accuracy.

    Latency counts from when a request was meant to go. Nothing is tried again and no kept answer
    is taken. Ctrl-C ends the load and shows what there is.
    """
    try:
        from service.bench import report
        from service.bench.load import Load, Plan, PlanError
        from service.bench.puzzles import draw, parse_mix, read_rows
        from service.bench.summary import summarise
    except ModuleNotFoundError as error:
        raise MissingExtra("bench serve", error.name, "client") from None

    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise PlanError(f"rate is {rate}; it must be a finite number above 0")
    Budget(depth, breadth, nfe, deadline_ms, stop=cast(Any, stop))
    limits = {"depth": depth, "breadth": breadth, "nfe": nfe, "deadline_ms": deadline_ms}
    budget = {name: value for name, value in {**limits, "stop": stop}.items() if value is not None}
    puzzles = draw(read_rows(data, limit), parse_mix(mix), seed)
    plan = Plan(
        server=server,
        rate=rate,
        concurrency=concurrency,
        seconds=seconds,
        warm_up_seconds=warm_up,
        endpoint=endpoint,  # type: ignore[arg-type]
        batch=batch,
        budget=budget,
        model=model,
        api_key=key_in(api_key_file),
        seed=seed,
    )
    load = Load(plan, puzzles)
    try:
        run(load)
    except ModuleNotFoundError as error:
        raise MissingExtra("bench serve", error.name, "client") from None
    document = summarise(load, slo_ms / 1e3)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        report.show(document, Console())
    if plot is not None:
        report.plot(load.samples, document, plot)
    if load.interrupted:
        raise typer.Exit(130)
    if not document["answered"]:
        typer.echo(f"error: nothing was answered; at last: {load.last_error}", err=True)
        raise typer.Exit(1)


def run(load: Any) -> None:
    """Run `load` with its progress on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("load", total=load.length, told="")
        waits = False

        def tell(now: Any) -> None:
            nonlocal waits
            items = [item for one in now.samples for item in one.items]
            shed = sum(item.shed for item in items)
            told = f"{len(items)} ended, {shed} shed, {now.in_flight} in flight"
            progress.update(bar, completed=min(now.now, now.length), told=told)
            if not waits and now.in_flight and now.now >= now.length + PATIENCE:
                waits = True
                console.print(f"waiting for the last {now.in_flight} requests, in flight still")

        asyncio.run(load.run(tell))

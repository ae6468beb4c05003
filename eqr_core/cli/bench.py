"""`eqr bench`: how fast, beside what people would use instead."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from eqr_core.cli import options
from eqr_core.cli.group import Commands
from eqr_core.engine.budget import Budget

if TYPE_CHECKING:
    from eqr_core.bench.match import Fixed
    from eqr_core.bench.suite import Plan
    from eqr_core.bench.workload import Workload

bench = typer.Typer(cls=Commands, no_args_is_help=True, help="Measure speed beside accuracy.")

Data = Annotated[Path, typer.Option(help="Puzzle file, CSV or CSV.gz; benchmark is ours.")]
Limit = Annotated[int, typer.Option(help="The first puzzles of the file.", min=1)]
Concurrency = Annotated[int, typer.Option(help="Requests in flight.", min=1, max=4096)]
Batch = Annotated[int, typer.Option(help="Rows of a static batch.", min=1, max=4096)]
Seconds = Annotated[float, typer.Option(help="For each kind of static batch, at least.", min=0.1)]
Arrivals = Annotated[int, typer.Option(help="Easy puzzles that arrive.", min=2, max=100_000)]
FixedBudget = Annotated[
    str | None,
    typer.Option(
        "--fixed",
        help="Depth x breadth of static batches, such as 64x8; else the smallest that is as "
        "accurate as the engine, which takes most of the time to find.",
    ),
]
Parts = Annotated[
    str | None,
    typer.Option(help="Only these of throughput, roofline, start, crowd, company; by commas."),
]


@bench.callback()
def _group() -> None:
    """Measure speed beside accuracy."""


@bench.command("engine")
def engine(
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    data: Data = Path("benchmark"),
    limit: Limit = 200,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    concurrency: Concurrency = 64,
    slots: options.Slots = 64,
    batch: Batch = 64,
    seconds: Seconds = 5.0,
    arrivals: Arrivals = 100,
    fixed: FixedBudget = None,
    parts: Parts = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure the engine against static batches at equal accuracy, and against this machine.

    Everything runs in this process, in turns; starts are measured in processes of their own.
    """
    given = dict(locals())
    given.pop("as_json")
    _, _, document = measure(**given)
    print_document(document, as_json)


def measure(
    model: str,
    data: Path,
    limit: int,
    depth: int,
    breadth: int,
    concurrency: int,
    slots: int,
    batch: int,
    seconds: float,
    arrivals: int,
    fixed: str | None,
    parts: str | None,
) -> tuple[Workload, Plan, dict[str, Any]]:
    """What was run, how, and what was found."""
    budget = Budget(depth, breadth)
    budget_of_batches = None if fixed is None else read_fixed(fixed)

    from eqr_core.bench.suite import PARTS, Plan, run_suite
    from eqr_core.bench.workload import Workload
    from eqr_core.data.benchmark import find_puzzles
    from eqr_core.evaluation.rows import read_rows

    chosen = PARTS if parts is None else tuple(part.strip() for part in parts.split(","))
    plan = Plan(
        cast(Any, chosen), budget, concurrency, slots, batch, seconds, arrivals, budget_of_batches
    )
    workload = Workload.of(model, read_rows(find_puzzles(data), limit))
    with activity() as note:
        return workload, plan, run_suite(workload, plan, note)


@contextlib.contextmanager
def activity() -> Iterator[Callable[[str], None]]:
    """What goes on at the moment, on standard error.

    Where that is no terminal it is a line for each phase, told apart by what stands before a comma.
    """
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        last = ""

        def line(text: str) -> None:
            nonlocal last
            phase = text.partition(",")[0]
            if phase != last:
                typer.echo(phase, err=True)
            last = phase

        yield line
        return
    with console.status("") as status:
        yield status.update


def read_fixed(text: str) -> Fixed:
    """`64x8`: 8 trajectories of depth 64; BadParameter for anything else."""
    from eqr_core.bench.match import Fixed

    depth, _, breadth = text.partition("x")
    try:
        budget = Budget(int(depth), int(breadth))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not like 64x8", param_hint="--fixed") from None
    return Fixed(budget.depth, budget.breadth)


def print_document(document: dict[str, Any], as_json: bool) -> None:
    """Print what was found as tables or as JSON."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    from eqr_core.cli.bench_tables import print_tables

    print_tables(document)

"""`eqr eval` and `eqr parity`: how good a checkpoint is, and whether the code is the paper's."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from eqr_core.cli import options
from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.evaluation.report import Report


def evaluate(
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")],
    data: Annotated[Path, typer.Option(help="Puzzle file, CSV or CSV.gz.")],
    depth: options.Depth = 16,
    breadth: options.Breadth = 1,
    nfe: options.Nfe = None,
    tolerance: options.Tolerance = None,
    stop: options.Stop = "converged",
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    limit: Annotated[int | None, typer.Option(help="Only the first rows of the file.")] = None,
    slots: options.Slots = 64,
    compiled: options.Compiled = False,
    record: Annotated[
        bool, typer.Option("--record", help="Add the report to the results in the card.")
    ] = False,
    as_json: Annotated[
        str | None, typer.Option("--json", help="File for the report as JSON; - prints it.")
    ] = None,
) -> None:
    """Measure a checkpoint on a puzzle file.

    Row i is solved with the seed SEED + i. With --stop exhausted every trajectory runs to the
    full depth, which is how the paper measures.
    """
    from eqr_core.engine.budget import Budget

    budget = Budget(depth, breadth, nfe, None, tolerance, cast(Any, stop))
    if as_json not in (None, "-") and not Path(as_json).parent.is_dir():
        raise DataError(f"{as_json}: there is no such folder")

    from eqr_core.engine.engine import Engine
    from eqr_core.evaluation.evaluate import evaluate, read_rows, record_report
    from eqr_core.model.checkpoint import find_checkpoint

    rows = read_rows(data, limit)
    engine = Engine([model], slots=slots, compiled=compiled)
    with progress("puzzles", note=True) as bar:
        shown = bar.add_task("eval", total=len(rows), note="")
        seen = exact = 0

        def on_answer(right: bool) -> None:
            nonlocal seen, exact
            seen, exact = seen + 1, exact + right
            bar.update(shown, advance=1, note=f"{exact / seen:.1%} exact")

        report = evaluate(
            engine,
            rows,
            budget,
            data=str(data),
            seed=seed,
            noise=noise,
            selection=cast(Any, selection),
            on_answer=on_answer,
        )
    if as_json is None:
        _print(report)
    else:
        write_json(as_json, report.to_dict())
    if record:
        record_report(find_checkpoint(model), report, data.name)


def parity(
    folder: Annotated[Path, typer.Argument(help="Folder of fixture folders.")],
    as_json: options.AsJson = False,
) -> None:
    """Compare every tensor of the reference fixtures with this code; exit 1 on a difference."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    from eqr_core.evaluation.parity import check_parity, run

    if not as_json:
        raise typer.Exit(run(folder))
    rows = check_parity(folder)
    plain = [
        {**asdict(row), **{name: _number(getattr(row, name)) for name in ("error", "tolerance")}}
        for row in rows
    ]
    typer.echo(json.dumps(plain))
    raise typer.Exit(0 if all(row.ok for row in rows) else 1)


def _number(value: float) -> float | None:
    """`value`, None where it is none: JSON has no NaN."""
    return value if math.isfinite(value) else None


def write_json(target: str, document: dict[str, Any]) -> None:
    """Write `document` to the file `target`, or print it for ``-``."""
    text = json.dumps(document, indent=2)
    if target == "-":
        typer.echo(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None


def _print(report: Report) -> None:
    console = Console()
    low, high = report.exact_interval
    console.print(
        f"{report.model} on {report.data}: {report.exact} of {report.rows} exact "
        f"({report.exact_accuracy:.1%}, 95% interval {low:.1%} to {high:.1%})\n"
        f"D {report.depth}, B {report.breadth}, stop {report.stop}: cells "
        f"{report.cell_accuracy:.2%}, converged {report.converged:.1%}, verified "
        f"{report.verified:.1%}, mean iterations {report.mean_iterations:.1f}, mean NFE "
        f"{report.mean_nfe:.1f}, {report.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("", "puzzles", "exact", "accuracy", "95% interval")
    for title, groups in (("rating", report.rating), ("", report.source)):
        for name, share in groups.items():
            low, high = share["exact_interval"]
            table.add_row(
                f"{title} {name}".strip(),
                str(share["rows"]),
                str(share["exact"]),
                f"{share['exact_accuracy']:.1%}",
                f"{low:.1%} to {high:.1%}",
            )
        table.add_section()
    console.print(table)

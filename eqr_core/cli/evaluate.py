"""`eqr eval` and `eqr parity`: how good a checkpoint is, and whether the code is the paper's."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from eqr_core.cli import options
from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError


def evaluate(
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Puzzle file, CSV or CSV.gz; benchmark is ours. Given several times, all together."
        ),
    ],
    depth: Annotated[
        str, typer.Option(help="Outer steps of one trajectory at most; 1,4,16 sweeps.")
    ] = "16",
    breadth: Annotated[str, typer.Option(help="Trajectories at most; 1,4,16 sweeps.")] = "1",
    nfe: options.Nfe = None,
    tolerance: options.Tolerance = None,
    stop: Annotated[
        str | None,
        typer.Option(
            help="converged, verified or exhausted as in solve, or several. Without it a sweep "
            "takes exhausted,converged, a single budget converged."
        ),
    ] = None,
    halt: options.Halt = "residual",
    patience: options.Patience = None,
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    limit: Annotated[int | None, typer.Option(help="Only the first rows of each file.")] = None,
    slots: options.Slots = 64,
    workers: Annotated[
        int, typer.Option(help="Processes that compute, each with one thread.", min=1, max=256)
    ] = 1,
    compiled: options.Compiled = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report, tables and plots; what is there goes on."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Add the reports to the results in the card.")
    ] = False,
    as_json: Annotated[
        str | None, typer.Option("--json", help="File for the report as JSON; - prints it.")
    ] = None,
) -> None:
    """Measure a checkpoint on a puzzle file, under one budget or a sweep of them.

    Row i is solved with the seed SEED + i. With --stop exhausted every trajectory runs to the
    full depth, which is how the paper measures. All budgets of a sweep share their trajectories,
    so it costs what its largest budget costs alone.
    """
    from eqr_core.evaluation.sweep import Sweep

    sweep = Sweep.parse(depth, breadth, stop, nfe, tolerance, cast(Any, halt), patience)
    if as_json not in (None, "-") and not Path(as_json).parent.is_dir():
        raise DataError(f"{as_json}: there is no such folder")
    if out is not None and not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}")

    from eqr_core.cli.evaluation_tables import print_evaluation
    from eqr_core.data.benchmark import find_puzzles
    from eqr_core.evaluation.evaluate import evaluate
    from eqr_core.evaluation.results import record_report
    from eqr_core.evaluation.rows import read_rows
    from eqr_core.model.checkpoint import find_checkpoint

    rows = [row for file in data for row in read_rows(find_puzzles(file), limit)]
    name = ", ".join(file.name for file in data)
    with progress("puzzles", note=True) as bar:
        line = bar.add_task("eval", total=len(rows), note="")
        seen = exact = 0

        def on_rows(count: int, right: int | None) -> None:
            nonlocal seen, exact
            if right is None:
                bar.reset(line, completed=count, note="" if not count else f"{count} from before")
                return
            seen, exact = seen + count, exact + right
            bar.update(line, advance=count, note=f"{exact / seen:.1%} exact")

        found = evaluate(
            model,
            rows,
            sweep,
            data=str(data[0]) if len(data) == 1 else name,
            seed=seed,
            noise=noise,
            selection=cast(Any, selection),
            slots=slots,
            compiled=compiled,
            workers=workers,
            folder=out,
            on_rows=on_rows,
        )
    if out is not None:
        from eqr_core.evaluation.tables import write_tables

        write_tables(out, found)
    if as_json is None:
        print_evaluation(found)
    else:
        write_json(as_json, found.to_dict())
    if record:
        for report in found.reports:
            record_report(find_checkpoint(model), report, name)
    if out is not None:
        from eqr_core.evaluation import examples
        from eqr_core.evaluation.plots import check, draw

        check(out)
        shown = examples.show(
            model,
            rows,
            sweep,
            found.examples,
            seed=seed,
            noise=noise,
            selection=cast(Any, selection),
            compiled=compiled,
        )
        draw(out, found, shown)


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

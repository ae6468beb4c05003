"""`eqr data`: check, split and import puzzle files."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from eqr_core.cli import options
from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.data.check import FileReport, PairReport
    from eqr_core.data.packed import PackedPuzzles

data = typer.Typer(help="Check, split and import puzzle files.", no_args_is_help=False)

Puzzles = Annotated[Path, typer.Argument(help="Puzzle file: CSV, CSV.gz or packed .npz.")]
Seed = Annotated[int, typer.Option(help="The same seed draws the same rows.", min=0)]


@data.callback()
def _group() -> None:
    """Check, split and import puzzle files."""


@data.command("check")
def check(
    first: Puzzles,
    second: Annotated[
        Path | None, typer.Argument(help="Another, which must share nothing with the first.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check puzzles, and that two files have none in common up to symmetry; exit 1 on a fault."""
    from eqr_core.data.benchmark import find_puzzles
    from eqr_core.data.check import check_file, check_pair

    paths = [find_puzzles(path) for path in (first, second) if path is not None]
    with progress("puzzles") as bar:
        reports = []
        for path in paths:
            shown = bar.add_task(path.name, total=None)
            reports.append(check_file(path, partial(bar.advance, shown)))
    sound = [puzzles for _, puzzles in reports]
    pair = None
    if len(sound) == 2 and sound[0] is not None and sound[1] is not None:
        pair = check_pair(sound[0], sound[1])
    files = [report for report, _ in reports]
    faults = sum(report.faults for report in files) + (pair.faults if pair else 0)
    if as_json:
        document = {
            "files": [{**asdict(report), "faults": report.faults} for report in files],
            "pair": {**asdict(pair), "faults": pair.faults} if pair else None,
            "faults": faults,
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(files, pair)
    raise typer.Exit(1 if faults else 0)


@data.command("split")
def split(
    puzzles: Puzzles,
    held_out: Annotated[int, typer.Option(help="Rows to hold out.", min=1)],
    train: Annotated[Path, typer.Option(help="File for the others: CSV, CSV.gz or .npz.")],
    test: Annotated[Path, typer.Option(help="File for the rows held out.")],
    seed: Seed = 0,
) -> None:
    """Split a file so that equivalent puzzles, at 9x9 equivalent solutions, are on one side."""
    from eqr_core.data.equivalence import split_apart
    from eqr_core.data.packed import read_packed

    for out in (train, test):
        _writable(out)
    rest, held = split_apart(read_packed(puzzles), held_out, seed)
    _save(train, rest)
    _save(test, held)


@data.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="CSV file, or a Hugging Face dataset such as owner/name.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: packed .npz, CSV or CSV.gz.")],
    file: Annotated[str, typer.Option(help="File of the dataset.")] = "train.csv",
    sample: Annotated[
        int | None, typer.Option(help="Draw so many rows instead of all.", min=1)
    ] = None,
    seed: Seed = 0,
) -> None:
    """Import a CSV of the Sudoku-Extreme form, checked row by row."""
    from eqr_core.data.importer import find_source, import_puzzles

    _writable(out)
    path = find_source(source, file)
    with progress("rows") as bar:
        shown = bar.add_task("import", total=None)
        puzzles = import_puzzles(path, sample, seed, partial(bar.advance, shown))
    _save(out, puzzles)


def _writable(out: Path) -> None:
    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}")
    if not out.name.endswith((".npz", ".csv", ".csv.gz")):
        raise DataError(f"{out}: the name must end in .npz, .csv or .csv.gz")


def _save(out: Path, puzzles: PackedPuzzles) -> None:
    from eqr_core.data.packed import unpack
    from eqr_core.data.puzzles import write_puzzles

    if out.suffix == ".npz":
        puzzles.save(out)
    else:
        write_puzzles(out, unpack(puzzles))
    typer.echo(f"{len(puzzles)} puzzles in {out}", err=True)


def _print(files: list[FileReport], pair: PairReport | None) -> None:
    console = Console()
    table = Table("", *(Path(report.path).name for report in files))
    for name in (
        "rows",
        "malformed",
        "several_solutions",
        "undecided",
        "duplicates",
        "equivalents",
    ):
        counts = (getattr(report, name) for report in files)
        table.add_row(name.replace("_", " "), *map(_shown, counts))
    console.print(table)
    for report in files:
        if report.malformed:
            console.print(f"{report.path}, {report.first_malformed}", soft_wrap=True)
    if pair:
        console.print(
            f"Of the second file's puzzles {pair.duplicates} are in the first, "
            f"{_shown(pair.equivalents)} have an equivalent there, and "
            f"{_shown(pair.shared_grids)} an equivalent solution.",
            highlight=False,
            soft_wrap=True,
        )


def _shown(count: int | None) -> str:
    return "not computed" if count is None else str(count)

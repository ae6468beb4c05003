"""`eqr generate`: puzzle files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError

generate = typer.Typer(help="Make puzzle files.", no_args_is_help=False)

CLUES = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")


@generate.callback()
def _group() -> None:
    """Make puzzle files."""


@generate.command("sudoku")
def sudoku(
    out: Annotated[Path, typer.Option(help="File to write, CSV or CSV.gz.")],
    size: Annotated[int, typer.Option(help="4, 6, 9 or 16.")] = 9,
    count: Annotated[int, typer.Option(help="Puzzles.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes the same puzzles.")] = 0,
    clues: Annotated[
        str | None, typer.Option(help="Number of clues, or a range such as 4-6; else minimal.")
    ] = None,
    min_rating: Annotated[
        int | None, typer.Option(help="Guesses that the rating solver must need at least.")
    ] = None,
) -> None:
    """Generate different Sudokus with one solution each, minimal unless --clues says otherwise."""
    from eqr_core.data.generate import generate_sudoku
    from eqr_core.data.puzzles import write_puzzles
    from eqr_core.tasks.sudoku_parser import sudoku_at

    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}")
    puzzles = generate_sudoku(sudoku_at(size, size), count, seed, _clues(clues), min_rating)
    with progress("puzzles") as bar:
        rows = list(bar.track(puzzles, total=count, description="generate"))
    write_puzzles(out, rows)
    typer.echo(f"{len(rows)} puzzles in {out}", err=True)


def _clues(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    match = CLUES.fullmatch(text)
    if not match:
        raise DataError(f"clues is {text!r:.40}; it must be a number, or a range such as 4-6")
    low, high = match.groups()
    return (int(low), int(high)) if high else int(low)

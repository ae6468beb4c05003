"""`eqr generate`: puzzle files."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.data.puzzles import PuzzleRow
    from eqr_core.data.units import Source

generate = typer.Typer(help="Make puzzle files.", no_args_is_help=False)

CLUES = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")
INTERRUPTED = 130

Out = Annotated[Path, typer.Option(help="File to write, CSV or CSV.gz.")]
Workers = Annotated[
    int, typer.Option(help="Processes at work; the puzzles are the same for any number.", min=1)
]


@generate.callback()
def _group() -> None:
    """Make puzzle files."""


@generate.command("sudoku")
def sudoku(
    out: Out,
    size: Annotated[int, typer.Option(help="4, 6, 9 or 16.")] = 9,
    count: Annotated[int, typer.Option(help="Puzzles.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes the same puzzles.")] = 0,
    clues: Annotated[
        str | None, typer.Option(help="Number of clues, or a range such as 4-6; else minimal.")
    ] = None,
    min_rating: Annotated[
        int | None,
        typer.Option(help="Guesses that the rating solver must need at least; by hill climbing."),
    ] = None,
    max_rating: Annotated[
        int | None, typer.Option(help="Guesses that the rating solver may need at most.")
    ] = None,
    workers: Workers = 1,
) -> None:
    """Generate different Sudokus with one solution each, minimal unless --clues says otherwise.

    Ctrl-C ends with a shorter file: the first puzzles of what the whole command makes.
    """
    from eqr_core.data.stream import Wanted
    from eqr_core.tasks.sudoku_parser import sudoku_at

    box = sudoku_at(size, size).box
    wanted = Wanted(size, box, seed, _clues(clues), min_rating, max_rating)
    _generate(out, wanted, count, workers)


@generate.command("maze")
def maze(
    out: Out,
    rows: Annotated[int, typer.Option(help="Rows of cells, walls included.")] = 30,
    columns: Annotated[
        int | None, typer.Option(help="Columns of cells; as many as rows, unless given.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="perfect: a tree of corridors; walls: cells walled at random.")
    ] = "perfect",
    count: Annotated[int, typer.Option(help="Mazes.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes the same mazes.")] = 0,
    min_path: Annotated[
        int | None, typer.Option(help="Fewest steps from S to G; else half of the longer side.")
    ] = None,
    max_path: Annotated[
        int | None,
        typer.Option(
            help="Most steps; else a sixth of the cells in a perfect maze, two thirds of both "
            "sides in the other kind."
        ),
    ] = None,
    workers: Workers = 1,
) -> None:
    """Generate different mazes, each with one shortest path; all lengths are as frequent.

    --rows 30 --min-path 100 --max-path 140 makes what the paper calls Maze-Unique. Ctrl-C ends
    with a shorter file: the first mazes of what the whole command makes.
    """
    from eqr_core.data.mazes import WantedMazes

    columns = rows if columns is None else columns
    wanted = WantedMazes(rows, columns, cast(Any, kind), seed, min_path, max_path)
    _generate(out, wanted, count, workers)


def _generate(out: Path, wanted: Source, count: int, workers: int) -> None:
    from eqr_core.data.units import first_rows

    with progress("puzzles", note=True) as bar:
        shown = bar.add_task("generate", total=count, note="")
        rows = first_rows(wanted, count, workers)
        _write(out, count, _counted(rows, lambda: bar.advance(shown)))


@generate.command("benchmark")
def benchmark(out: Out, workers: Workers = 1) -> None:
    """Make the benchmark that `eqr eval --data benchmark` reads once more."""
    from eqr_core.data.benchmark import PUZZLES, benchmark_rows

    with progress("puzzles") as bar:
        shown = bar.add_task("generate", total=PUZZLES)
        _write(out, PUZZLES, benchmark_rows(PUZZLES, workers, lambda: bar.advance(shown)))


def _counted(rows: Iterator[PuzzleRow], report: Any) -> Iterator[PuzzleRow]:
    for row in rows:
        report()
        yield row


def _write(out: Path, count: int, rows: Iterator[PuzzleRow]) -> None:
    """Write `rows` as they come. A file is made with the first one, and is whole at any end."""
    from eqr_core.data.puzzles import write_puzzles

    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}")
    written = 0
    ended: BaseException | None = None

    def until_it_ends() -> Iterator[PuzzleRow]:
        nonlocal written, ended
        try:
            for row in rows:
                signals.hold()
                yield row
                written += 1
                signals.release()
        except (KeyboardInterrupt, DataError) as error:
            ended = error
        finally:
            signals.hold()  # while the file is closed

    with _Interrupts() as signals:
        given = until_it_ends()
        first = next(given, None)
        if first is not None:
            write_puzzles(out, chain([first], given))
    kept = f"{written} of {count} puzzles in {out}" if written else f"no puzzles in {out}"
    if isinstance(ended, KeyboardInterrupt):
        typer.echo(f"interrupted: {kept}", err=True)
        raise typer.Exit(INTERRUPTED)
    if ended is not None:
        raise DataError(f"{ended}; {kept}")
    typer.echo(f"{written} puzzles in {out}", err=True)


class _Interrupts:
    """Ctrl-C as KeyboardInterrupt, but never while a row is being written."""

    def __init__(self) -> None:
        self.held = self.pending = False

    def __enter__(self) -> _Interrupts:
        self.before = signal.signal(signal.SIGINT, self._arrive)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False
        if self.pending:
            raise KeyboardInterrupt

    def _arrive(self, number: int, frame: object) -> None:
        self.pending = True
        if not self.held:
            raise KeyboardInterrupt


def _clues(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    match = CLUES.fullmatch(text)
    if not match:
        raise DataError(f"clues is {text!r:.40}; it must be a number, or a range such as 4-6")
    low, high = match.groups()
    return (int(low), int(high)) if high else int(low)

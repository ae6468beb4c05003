"""What the terminal shows: grids, shares, progress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from eqr_core.tasks.base import Grid, Task

GIVEN, FILLED, RULE = "bold", "cyan", "dim"


def draw_grid(task: Task, grid: Grid, answer: Grid) -> Text:
    """`answer` with its boxes drawn, if it has some; what stands in the input `grid` stands out."""
    height, width = getattr(task, "box", (task.rows, task.columns))
    cell = max(len(str(value)) for row in answer for value in row)
    rule = "+".join("-" * (width * (cell + 1) + 1) for _ in range(task.columns // width))
    picture = Text()
    for r, (clues, values) in enumerate(zip(grid, answer, strict=True)):
        if r and r % height == 0:
            picture.append(rule + "\n", RULE)
        for c, (clue, value) in enumerate(zip(clues, values, strict=True)):
            if c and c % width == 0:
                picture.append(" |", RULE)
            shown = str(value) if value else "."
            picture.append(" " + shown.rjust(cell), GIVEN if clue and clue == value else FILLED)
        picture.append("\n")
    return picture


def summary(document: dict[str, Any]) -> str:
    """Two lines about an answer in its JSON form: how it ended, and what it took."""
    residual = "none" if document["residual"] is None else f"{document['residual']:.3g}"
    sure = "" if document["confidence"] is None else f", confidence {document['confidence']:.1%}"
    verified = "verified" if document["verified"] else "NOT verified: it breaks the rules"
    return (
        f"{document['finish_reason']}, {verified}\n"
        f"residual {residual}{sure}, {document['iterations']} iterations, NFE {document['nfe']}, "
        f"{document['timing_ms']['total']:.0f} ms, model {document['model']}"
    )


def progress(unit: str, note: bool = False) -> Progress:
    """A progress bar on standard error, shown where that is a terminal."""
    columns = [TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn()]
    return Progress(
        *columns,
        TextColumn(unit),
        *([TextColumn("{task.fields[note]}")] if note else []),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=300,  # what ends in bursts still gets an estimate
        disable=not sys.stderr.isatty(),
    )

"""What each ingredient of EqR adds, at small scale on a CPU.

`python -m benchmarks.construction --help`. Every cell (a stage with a seed) that is done is a file
and is not run again, so the same command goes on after an interruption; table and plot of what is
done are written anew after each.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path as File
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.construction.cells import is_done, make_puzzles, run_cell, write_whole
from benchmarks.construction.maze import MAZE
from benchmarks.construction.path import Path
from benchmarks.construction.plot import draw
from benchmarks.construction.sudoku import SUDOKU
from benchmarks.construction.summary import show, summarise, write_table
from eqr_core.errors import EqrError


class Name(StrEnum):
    """The paths."""

    sudoku = "sudoku"
    maze = "maze"


PATHS: dict[Name, Path] = {Name.sudoku: SUDOKU, Name.maze: MAZE}


def main(
    out: Annotated[File, typer.Option(help="Folder of everything that is made.")],
    path: Annotated[Name, typer.Option(help="The construction path, or RI and NI.")] = Name.sudoku,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each stage.")] = 3,
) -> None:
    """Train and measure every stage of a path with every seed, then draw table and plot."""
    torch.set_num_threads(1)
    console = Console(stderr=True)
    chosen = PATHS[path]
    try:
        make_puzzles(chosen, out)
        cells = [(stage, seed) for seed in range(seeds) for stage in range(len(chosen.stages))]
        for number, (stage, seed) in enumerate(cells, start=1):
            if is_done(chosen, out, stage, seed):
                continue
            name = chosen.stages[stage].name
            console.print(f"cell {number} of {len(cells)}: {name}, seed {seed}")
            if not run_cell(chosen, out, stage, seed):
                raise typer.Exit(130)
            report(chosen, out, seeds)
    except EqrError as error:
        console.print(f"error: {error}", highlight=False)
        raise typer.Exit(1) from None
    show(chosen, report(chosen, out, seeds))


def report(path: Path, out: File, seeds: int) -> list[dict[str, Any]]:
    """Write the summary of what is done as JSON, CSV and plot, and return it."""
    summary = summarise(path, out, seeds)
    write_whole(out / "construction.json", json.dumps(summary, indent=2) + "\n")
    write_table(out / "construction.csv", summary)
    draw(path, out / "construction.png", summary)
    return summary


if __name__ == "__main__":
    typer.run(main)

"""The paper's construction path at small scale on a CPU: what each ingredient of EqR adds.

`python -m benchmarks.construction --help`. Every cell (a stage with a seed) that is done is a file
and is not run again, so the same command goes on after an interruption; table and plot of what is
done are written anew after each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.construction.cells import is_done, puzzle_files, run_cell, write_whole
from benchmarks.construction.path import PATH
from benchmarks.construction.summary import draw, show, summarise, write_table
from eqr_core.errors import EqrError


def main(
    out: Annotated[Path, typer.Option(help="Folder of everything that is made.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each stage.")] = 3,
) -> None:
    """Train and measure every stage of the path with every seed, then draw table and plot."""
    torch.set_num_threads(1)
    console = Console(stderr=True)
    try:
        train, test = puzzle_files(out)
        cells = [(stage, seed) for seed in range(seeds) for stage in range(len(PATH))]
        for number, (stage, seed) in enumerate(cells, start=1):
            if is_done(out, stage, seed):
                continue
            console.print(f"cell {number} of {len(cells)}: {PATH[stage].name}, seed {seed}")
            if not run_cell(out, stage, seed, train, test):
                raise typer.Exit(130)
            report(out, seeds)
    except EqrError as error:
        console.print(f"error: {error}", highlight=False)
        raise typer.Exit(1) from None
    show(report(out, seeds))


def report(out: Path, seeds: int) -> list[dict[str, Any]]:
    """Write the summary of what is done as JSON, CSV and plot, and return it."""
    summary = summarise(out, seeds)
    write_whole(out / "construction.json", json.dumps(summary, indent=2) + "\n")
    write_table(out / "construction.csv", summary)
    draw(out / "construction.png", summary)
    return summary


if __name__ == "__main__":
    typer.run(main)

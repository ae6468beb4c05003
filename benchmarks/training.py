"""Samples per second of training, over widths and batch sizes of a recipe's operator.

`python -m benchmarks.training --help`. Each variant trains in a folder of its own that is removed;
the rate is taken between the first and the last line of its curve, so compilation is left out.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from eqr_core.device import choose_device
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import Recipe, load_recipe


def main(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")] = "sudoku",
    data: Annotated[list[Path] | None, typer.Option(help="Puzzle file.")] = None,
    hidden: Annotated[list[int] | None, typer.Option(help="Widths; the recipe's if none.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes, likewise.")] = None,
    seconds: Annotated[float, typer.Option(help="Training of each variant, compiling in.")] = 60.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train the first size of RECIPE in every variant for a while and print a table."""
    base, where = load_recipe(recipe), choose_device(device)
    first = base.puzzles[0]
    runs = [
        measure(
            replace(
                base,
                operator=replace(base.operator, hidden=width),
                puzzles=(replace(first, batch=rows),),
                steps=10**9,
                validate_every=10**9,
            ),
            data or [],
            seconds,
            where,
        )
        for width in hidden or [base.operator.hidden]
        for rows in batch or [first.batch]
    ]
    if as_json:
        typer.echo(json.dumps({"recipe": base.name, "torch": torch.__version__, "runs": runs}))
        return
    table = Table(title=f"{base.name}, {first.size}, {base.precision}, {where.type}")
    for name in runs[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for run in runs:
        table.add_row(*(f"{value:,.4g}" if value is not None else "–" for value in run.values()))
    Console(width=110).print(table)


def measure(
    recipe: Recipe, files: list[Path], seconds: float, device: torch.device
) -> dict[str, Any]:
    """One variant's rate; None where the time was too short for two lines of the curve."""
    torch._dynamo.reset()  # one code object compiles for a few shapes only
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    with TemporaryDirectory() as folder:
        trainer = Trainer(recipe, Path(folder), files, device=device)
        trainer.run(minutes=seconds / 60)
        with (Path(folder) / "curve.csv").open(encoding="utf-8") as file:
            rows = [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]
        rate = None
        if len(rows) > 1:
            spent = rows[-1]["seconds"] - rows[0]["seconds"]
            rate = (rows[-1]["samples"] - rows[0]["samples"]) / spent
        return {
            "hidden": recipe.operator.hidden,
            "batch": recipe.puzzles[0].batch,
            "parameters": trainer.operator.parameter_count,
            "samples_per_second": rate,
            "loss": rows[-1]["loss"] if rows else None,
            "gpu_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        }


if __name__ == "__main__":
    typer.run(main)

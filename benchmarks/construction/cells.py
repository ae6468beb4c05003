"""One cell: a stage with a seed, trained by the library and measured by its evaluation."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path as File

from rich.progress import Progress

from benchmarks.construction.path import Held, Path, train_file
from eqr_core.data.puzzles import read_puzzles
from eqr_core.errors import RecipeError
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.report import Report
from eqr_core.evaluation.sweep import Sweep
from eqr_core.training.loop import Trainer


def make_puzzles(path: Path, out: File) -> None:
    """Training and test puzzles, made once."""
    if not all(f.exists() for f in (train_file(out), *(h.file(out) for h in path.tests))):
        out.mkdir(parents=True, exist_ok=True)
        path.make(path, out)


def result_file(out: File, stage: int, seed: int) -> File:
    """Where the result of a cell is kept."""
    return out / "cells" / f"{stage}-seed{seed}" / "result.json"


def is_done(path: Path, out: File, stage: int, seed: int) -> bool:
    """Whether the cell has its result; RecipeError where that is of another recipe."""
    file = result_file(out, stage, seed)
    if not file.exists():
        return False
    wanted = json.loads(json.dumps(path.recipe(stage, seed).to_dict()))
    if json.loads(file.read_text(encoding="utf-8"))["recipe"] != wanted:
        raise RecipeError(f"{file}: it is the result of another recipe; name another folder")
    return True


def run_cell(path: Path, out: File, stage: int, seed: int) -> bool:
    """Train and measure one cell, from where it was interrupted; False if it is again."""
    file = result_file(out, stage, seed)
    recipe = path.recipe(stage, seed)
    trainer = Trainer(recipe, file.parent / "run", [train_file(out)], compiled=path.native)
    trainer.resume()
    trainer.run()
    if trainer.interrupted:
        return False
    began = time.perf_counter()
    # From a fixed state, without noise, all trajectories are one.
    one = recipe.operator.initial == "fixed"
    measured = [
        (held, _measure(file.parent / "run" / "best", out, held, one)) for held in path.tests
    ]
    result = {
        "stage": path.stages[stage].name,
        "seed": seed,
        "recipe": recipe.to_dict(),
        "parameters": trainer.operator.parameter_count,
        "layers_per_step": recipe.operator.layers_per_step,
        "train_seconds": round(trainer.seconds, 1),
        "eval_seconds": round(time.perf_counter() - began, 1),
        "samples": trainer.samples,
        "exact": [
            {
                "size": held.size,
                "depth": report.depth,
                "breadth": report.breadth,
                "rows": report.rows,
                "exact": report.exact,
            }
            for held, reports in measured
            for report in reports
        ],
    }
    write_whole(file, json.dumps(result, indent=2) + "\n")
    return True


def _measure(checkpoint: File, out: File, held: Held, one: bool) -> tuple[Report, ...]:
    rows = list(read_puzzles(held.file(out)))
    sweep = Sweep(held.depths, (1,) if one else held.breadths, ("exhausted",))
    with Progress() as progress:
        bar = progress.add_task(f"measuring {held.size}", total=len(rows))
        return evaluate(
            checkpoint,
            rows,
            sweep,
            data=held.file(out).name,
            folder=checkpoint.parent / f"measured-{held.size}",
            on_rows=lambda done, right: progress.advance(bar, done),
        ).reports


def write_whole(file: File, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pending = file.with_name(f".{file.name}.new")
    pending.write_text(text, encoding="utf-8")
    os.replace(pending, file)  # noqa: PTH105 - atomic on one file system

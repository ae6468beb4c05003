"""One cell: a stage with a seed, trained by the library and measured by its evaluation."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from rich.progress import Progress

from benchmarks.construction.path import CLUES, PATH, PUZZLES, SIDE, TEST_ROWS, recipe_of
from eqr_core.data.canonical import canonical_grids, keys
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import digit_tokens, read_puzzles, write_puzzles
from eqr_core.errors import RecipeError
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.sweep import Sweep
from eqr_core.tasks.sudoku import BOXES, Sudoku
from eqr_core.training.loop import Trainer

DEPTHS = (1, 2, 3, 4, 6, 8, 16, 32)
BREADTHS = (1, 2, 4, 8)


def puzzle_files(out: Path) -> tuple[Path, Path]:
    """Training and test puzzles, made once.

    No solution of a test puzzle is equivalent to that of a training puzzle: whole classes of
    solution grids (`canonical_grids`) are held out.
    """
    train, test = out / "train.csv", out / "test.csv"
    if train.exists() and test.exists():
        return train, test
    out.mkdir(parents=True, exist_ok=True)
    rows = list(generate_sudoku(Sudoku(BOXES[SIDE]), PUZZLES, seed=0, clues=CLUES))
    answers = digit_tokens([row.answer for row in rows]) - 1
    classes, number = np.unique(keys(canonical_grids(BOXES[SIDE], answers)), return_inverse=True)
    order = np.random.default_rng(0).permutation(len(classes))
    counts = np.bincount(number)[order].cumsum()
    held_out = order[: int(np.searchsorted(counts, TEST_ROWS)) + 1]
    apart = np.isin(number, held_out)
    write_puzzles(train, [row for row, other in zip(rows, apart, strict=True) if not other])
    tests = [row for row, other in zip(rows, apart, strict=True) if other]
    write_puzzles(test, tests[:TEST_ROWS])
    return train, test


def result_path(out: Path, stage: int, seed: int) -> Path:
    """Where the result of a cell is kept."""
    return out / "cells" / f"{stage}-seed{seed}" / "result.json"


def is_done(out: Path, stage: int, seed: int) -> bool:
    """Whether the cell has its result; RecipeError where that is of another recipe."""
    path = result_path(out, stage, seed)
    if not path.exists():
        return False
    wanted = json.loads(json.dumps(recipe_of(stage, seed).to_dict()))
    if json.loads(path.read_text(encoding="utf-8"))["recipe"] != wanted:
        raise RecipeError(f"{path}: it is the result of another recipe; name another folder")
    return True


def run_cell(out: Path, stage: int, seed: int, train: Path, test: Path) -> bool:
    """Train and measure one cell, from where it was interrupted; False if it is again."""
    path = result_path(out, stage, seed)
    recipe = recipe_of(stage, seed)
    trainer = Trainer(recipe, path.parent / "run", [train], compiled=False)
    trainer.resume()
    trainer.run()
    if trainer.interrupted:
        return False
    rows = list(read_puzzles(test))
    random = recipe.operator.initial == "random"
    # From a fixed state, without noise, all trajectories are one.
    sweep = Sweep(DEPTHS, BREADTHS if random else (1,), ("exhausted",))
    with Progress() as progress:
        bar = progress.add_task("measuring", total=len(rows))
        began = time.perf_counter()
        evaluation = evaluate(
            path.parent / "run" / "best",
            rows,
            sweep,
            data=test.name,
            on_rows=lambda done, right: progress.advance(bar, done),
        )
    result = {
        "stage": PATH[stage].name,
        "seed": seed,
        "recipe": recipe.to_dict(),
        "parameters": trainer.operator.parameter_count,
        "layers_per_step": recipe.operator.layers_per_step,
        "train_seconds": round(trainer.seconds, 1),
        "eval_seconds": round(time.perf_counter() - began, 1),
        "samples": trainer.samples,
        "rows": len(rows),
        "exact": [
            {"depth": report.depth, "breadth": report.breadth, "exact": report.exact}
            for report in evaluation.reports
        ],
    }
    write_whole(path, json.dumps(result, indent=2) + "\n")
    return True


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f".{path.name}.new")
    pending.write_text(text, encoding="utf-8")
    os.replace(pending, path)  # noqa: PTH105 - atomic on one file system

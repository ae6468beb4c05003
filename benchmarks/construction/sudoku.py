"""The paper's construction path, on 6×6 Sudokus."""

from __future__ import annotations

from pathlib import Path as File

import numpy as np

from benchmarks.construction.path import Held, Path, Stage, train_file
from eqr_core.data.canonical import canonical_grids, keys
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import digit_tokens, write_puzzles
from eqr_core.model.config import OperatorConfig
from eqr_core.tasks.sudoku import BOXES, Sudoku
from eqr_core.training.recipe import Recipe, SizeMix

SIDE = 6
SIZE = f"{SIDE}x{SIDE}"
CLUES = 14
PUZZLES = 3000
DEPTH = 16
CYCLES, UPDATES = 1, 3
"""Updates of one cycle, over both states: every stage passes as many layers an outer step."""
TRAINING = Recipe(
    name="construction",
    operator=OperatorConfig(
        task="sudoku",
        mixer="token",
        hidden=32,
        blocks=CYCLES * UPDATES,
        cycles=1,
        updates=1,
        states="none",
        tokens=SIDE * SIDE,
        vocabulary=SIDE + 2,
        damping=0.0,
        noise=0.0,
        initial="fixed",
    ),
    puzzles=(SizeMix(SIZE, 1.0, 128, PUZZLES),),
    steps=600,
    depth=1,
    act=False,
    warmup=50,
    reveal=0.0,
    augment=True,
    precision="bfloat16",
    ema=0.98,
    validate_every=600,
)
STAGES = (
    Stage("feed-forward"),
    Stage("weight-tied", {"states": "single", "blocks": 1, "cycles": CYCLES, "updates": UPDATES}),
    Stage("+ SOT", training={"depth": DEPTH}),
    Stage("+ hierarchical", {"states": "hierarchical", "updates": UPDATES - 1}),
    Stage("+ ACT", training={"act": True}),
    Stage("+ RI", {"initial": "random"}),
    Stage("+ NI", {"noise": 0.01, "damping": 0.05}),
)


def make(path: Path, out: File) -> None:
    """Training and test puzzles.

    No solution of a test puzzle is equivalent to that of a training puzzle: whole classes of
    solution grids (`canonical_grids`) are held out.
    """
    (held,) = path.tests
    rows = list(generate_sudoku(Sudoku(BOXES[SIDE]), path.puzzles, seed=0, clues=CLUES))
    answers = digit_tokens([row.answer for row in rows]) - 1
    classes, number = np.unique(keys(canonical_grids(BOXES[SIDE], answers)), return_inverse=True)
    order = np.random.default_rng(0).permutation(len(classes))
    counts = np.bincount(number)[order].cumsum()
    held_out = order[: int(np.searchsorted(counts, held.rows)) + 1]
    apart = np.isin(number, held_out)
    write_puzzles(train_file(out), [r for r, other in zip(rows, apart, strict=True) if not other])
    tests = [row for row, other in zip(rows, apart, strict=True) if other]
    write_puzzles(held.file(out), tests[: held.rows])


SUDOKU = Path(
    training=TRAINING,
    stages=STAGES,
    puzzles=PUZZLES,
    tests=(Held(SIZE, 250, (1, 2, 3, 4, 6, 8, 16, 32), (1, 2, 4, 8)),),
    make=make,
)

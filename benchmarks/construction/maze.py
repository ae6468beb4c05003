"""Random initial states (RI) and path noise (NI), each off and on, on 15×15 mazes.

The operator knows which cells are neighbours (`grid`), so it can be asked for larger mazes than
it was trained on; those of the paper's benchmark are 30×30 with paths of 100 to 140 steps.
"""

from __future__ import annotations

from pathlib import Path as File

from benchmarks.construction.path import Held, Path, Stage, train_file
from eqr_core.data.equivalence import split_apart
from eqr_core.data.forms import form_of
from eqr_core.data.packed import pack, unpack
from eqr_core.data.puzzles import write_puzzles
from eqr_core.model.config import OperatorConfig
from eqr_core.training.recipe import Recipe, SizeMix, task_of_size

SIZE = "15x15"
PUZZLES = 8000
KINDS = {"perfect": [7, 40], "walls": [7, 20]}
LONG = {"perfect": [100, 140]}
LONG_SEED = 1
TRAINING = Recipe(
    name="construction-maze",
    operator=OperatorConfig(
        task="maze",
        mixer="grid",
        hidden=32,
        expansion=2.0,
        blocks=2,
        cycles=1,
        updates=6,
        states="single",
        vocabulary=6,
        noise=0.0,
        initial="fixed",
    ),
    puzzles=(SizeMix(SIZE, 1.0, 32, PUZZLES),),
    steps=1200,
    warmup=50,
    reveal=0.0,
    augment=True,
    precision="bfloat16",
    ema=0.99,
    validate_every=1200,
    untrained_sizes=("5x5-64x64",),
)
STAGES = (
    Stage("neither"),
    Stage("NI", {"noise": 0.01}),
    Stage("RI", {"noise": 0.0, "initial": "random"}),
    Stage("RI + NI", {"noise": 0.01}),
)


def make(path: Path, out: File) -> None:
    """Training and test mazes; no walls of a test maze are those of a training maze, turned or
    reflected.
    """
    held, *larger = path.tests
    form = form_of("maze")
    mazes = pack(form.generate(task_of_size("maze", SIZE), path.puzzles, 0, KINDS))
    train, test = split_apart(mazes, held.rows, 0)
    write_puzzles(train_file(out), unpack(train))
    write_puzzles(held.file(out), unpack(test))
    for one in larger:
        task = task_of_size("maze", one.size)
        write_puzzles(one.file(out), form.generate(task, one.rows, LONG_SEED, LONG))


MAZE = Path(
    training=TRAINING,
    stages=STAGES,
    puzzles=PUZZLES,
    tests=(
        Held(SIZE, 250, (1, 2, 4, 8, 16, 32), (1, 2, 4)),
        Held("30x30", 150, (4, 8, 16, 32, 64)),
    ),
    make=make,
    native=True,
)

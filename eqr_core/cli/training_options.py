"""Options of `eqr train`, which the service's command line has too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if not given.")]
Data = Annotated[
    list[Path] | None, typer.Option(help="Puzzle file; give the option again for more.")
]
Start = Annotated[
    str | None, typer.Option(help="Begin with the weights of this checkpoint, name or folder.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Stop after so long; go on another time.", min=0)
]
Within = Annotated[
    float | None,
    typer.Option(
        help="End the run, its learning rate decayed (recipe: decay), within so many minutes of "
        "training in all; the recipe's steps do not count then.",
        min=0.01,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed in place of the recipe's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")]
Rehearse = Annotated[
    bool,
    typer.Option(
        "--rehearse",
        help="Try the command at tiny width: train, stop, go on, export, solve.",
    ),
]

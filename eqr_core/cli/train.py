"""`eqr train`: one run of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="Puzzle file; give the option again for more.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed in place of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a checkpoint; an interrupted run goes on with --resume."""
    from eqr_core.training.loop import train

    train(recipe, out, data=data or [], minutes=minutes, seed=seed, resume=resume)

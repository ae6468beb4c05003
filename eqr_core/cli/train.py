"""`eqr train`: one run of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from eqr_core.errors import DataError, RecipeError


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
    """Train a checkpoint into OUT/best. What was interrupted goes on with --resume."""
    for path in data or []:
        if not path.is_file():
            raise DataError(f"{path}: no such file")

    from eqr_core.training.loop import Trainer
    from eqr_core.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if resume != (out / "state.safetensors").is_file():
        there = "no run to resume" if resume else "a run; give --resume to go on with it"
        raise RecipeError(f"{out} holds {there}")
    trainer = Trainer(chosen, out, data or [])
    if resume:
        trainer.resume()
    best = trainer.run(minutes)
    typer.echo(
        f"{chosen.name}: {trainer.done} of {chosen.steps} steps, best validation accuracy "
        f"{best:.1%}, checkpoint in {out / 'best'}"
    )

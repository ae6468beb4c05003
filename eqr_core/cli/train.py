"""`eqr train`: one run of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from eqr_core.cli import training_options as options
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.training.recipe import Recipe

INTERRUPTED = 130


def train(
    recipe: options.Recipe,
    out: options.Out = None,
    data: options.Data = None,
    start: options.Start = None,
    minutes: options.Minutes = None,
    within: options.Within = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    rehearse: options.Rehearse = False,
) -> None:
    """Train a checkpoint into OUT/best; where OUT holds this run already, go on with it."""
    chosen, folder = choose(recipe, out, data, seed)

    from eqr_core.device import choose_device
    from eqr_core.model.checkpoint import find_checkpoint
    from eqr_core.training.loop import Trainer
    from eqr_core.training.rehearse import MINUTES, rehearse_run

    beginning = find_checkpoint(start) if start else None

    def build(recipe: Recipe, folder: Path, small: bool = False) -> Trainer:
        return Trainer(
            recipe,
            folder,
            data or [],
            start=None if small else beginning,
            within=MINUTES if small and within else within,
            device=choose_device(device),
            report=lambda text: typer.echo(text, err=True),
        )

    if rehearse:
        typer.echo(rehearse_run(chosen, folder, build))
        return
    trainer = build(chosen, folder)
    if trainer.resume():
        typer.echo(f"going on from step {trainer.done} in {folder}", err=True)
    best = trainer.run(minutes)
    conclude(chosen, folder, trainer.progress, trainer.done, best, trainer.interrupted)


def choose(
    recipe: str, out: Path | None, data: list[Path] | None, seed: int | None
) -> tuple[Recipe, Path]:
    """The recipe as it is to be trained, and the folder of its run; DataError, RecipeError."""
    from eqr_core.training.recipe import load_recipe

    for path in data or []:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    chosen = load_recipe(recipe)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    return chosen, out or Path("runs") / chosen.name


def conclude(
    recipe: Recipe, folder: Path, progress: float, done: int, best: float, interrupted: bool
) -> None:
    """Say how the run stands; exit code 130 where it was interrupted."""
    accuracy = "not validated yet" if best < 0 else f"best validation accuracy {best:.1%}"
    typer.echo(f"{recipe.name}: {progress:.0%} done, {done} steps, {accuracy}, in {folder}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)

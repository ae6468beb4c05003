"""`eqr train`: one run of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from eqr_core.errors import DataError

INTERRUPTED = 130


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME if not given.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Puzzle file; give the option again for more.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Begin with the weights of this checkpoint, name or folder.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; go on another time.", min=0)
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            help="End the run, its learning rate decayed, within so many minutes of training in "
            "all; the recipe's steps do not count then.",
            min=0.01,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed in place of the recipe's.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")
    ] = "auto",
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Try the command at tiny width on the CPU: train, stop, go on, export, solve.",
        ),
    ] = False,
) -> None:
    """Train a checkpoint into OUT/best; where OUT holds this run already, go on with it."""
    for path in data or []:
        if not path.is_file():
            raise DataError(f"{path}: no such file")

    from eqr_core.model.checkpoint import find_checkpoint
    from eqr_core.training.device import choose_device
    from eqr_core.training.loop import Trainer
    from eqr_core.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    folder = out or Path("runs") / chosen.name
    if rehearse:
        from eqr_core.training.rehearse import rehearse_run

        typer.echo(rehearse_run(chosen, data or [], within=within))
        return
    trainer = Trainer(
        chosen,
        folder,
        data or [],
        start=find_checkpoint(start) if start else None,
        within=within,
        device=choose_device(device),
        report=lambda text: typer.echo(text, err=True),
    )
    if trainer.resume():
        typer.echo(f"going on from step {trainer.done} in {folder}", err=True)
    best = trainer.run(minutes)
    accuracy = "not validated yet" if best < 0 else f"best validation accuracy {best:.1%}"
    typer.echo(
        f"{chosen.name}: {trainer.progress:.0%} done, {trainer.done} steps, {accuracy}, in {folder}"
    )
    if trainer.interrupted:
        raise typer.Exit(INTERRUPTED)

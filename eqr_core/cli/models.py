"""`eqr models`: what checkpoints there are; reading the reference's, widening, calibrating."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from eqr_core.cli import options
from eqr_core.cli.drawing import progress
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.model.card import Card

models = typer.Typer(help="List, show, import and calibrate checkpoints.", no_args_is_help=False)


@models.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the checkpoints that come with the package."""
    from eqr_core.model.checkpoint import find_checkpoint, read_card, zoo_names

    cards = [read_card(find_checkpoint(name)) for name in zoo_names()]
    if as_json:
        typer.echo(json.dumps([asdict(card) for card in cards]))
        return
    table = Table("name", "task", "sizes", "mixer", "parameters", "tolerance")
    for card in cards:
        table.add_row(
            card.name,
            card.task,
            ", ".join(card.sizes),
            card.operator.mixer,
            f"{card.parameters:,}",
            _tolerance(card),
        )
    Console().print(table)


@models.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    as_json: options.AsJson = False,
) -> None:
    """Show what matters most of a checkpoint's card; --json has all of it."""
    from eqr_core.model.checkpoint import find_checkpoint, read_card

    card = asdict(read_card(find_checkpoint(name)))
    if as_json:
        typer.echo(json.dumps(card))
        return
    results = card.pop("results")
    values = dict(_flat(card))
    width = max(map(len, SUMMARY))
    for field in SUMMARY:
        if values.get(field, "null") not in ("", "null"):
            typer.echo(f"{field:<{width}}  {values[field]}")
    if results:
        Console().print(_results(results))


@models.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="A .pth file of the reference implementation.")],
    name: Annotated[str, typer.Option(help="Name of the new checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    task: Annotated[str | None, typer.Option(help="Task, where the file does not tell.")] = None,
    size: Annotated[str | None, typer.Option(help="Grid size such as 9x9, likewise.")] = None,
) -> None:
    """Turn a checkpoint of the reference implementation into one of ours; runs no pickle."""
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    from eqr_core.model.reference import import_reference

    card = import_reference(file, out, name, task, size)
    typer.echo(f"{card.name}: {card.parameters:,} parameters, in {out}")


@models.command("widen")
def widen_model(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint of `units`.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
) -> None:
    """Put two copies of a trained operator into one of twice the width, to be trained further."""
    from eqr_core.model.checkpoint import (
        check_vacant,
        find_checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from eqr_core.model.widen import widened

    check_vacant(out)
    card = save_checkpoint(out, *widened(*load_checkpoint(find_checkpoint(name))))
    typer.echo(f"{card.name}: {card.parameters:,} parameters, in {out}")


@models.command("calibrate")
def calibrate_model(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    data: Annotated[Path, typer.Option(help="Puzzle file held out from training.")],
    limit: Annotated[int | None, typer.Option(help="Only the first rows of the file.")] = None,
    depth: Annotated[int, typer.Option(help="Outer steps of a trajectory.", min=3)] = 64,
    breadth: Annotated[int, typer.Option(help="Trajectories a puzzle.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Decides the initial states.")] = 0,
    target: Annotated[float, typer.Option(help="Precision wanted among the converged.")] = 0.995,
    least_recall: Annotated[float, typer.Option(help="Share of the right ones to stop.")] = 0.5,
    compiled: options.Compiled = False,
    as_json: options.AsJson = False,
) -> None:
    """Choose the tolerance of a checkpoint on held-out puzzles and write it into its card."""
    from eqr_core.data.packed import read_packed
    from eqr_core.evaluation.calibrate import calibrate
    from eqr_core.model.checkpoint import find_checkpoint

    folder = find_checkpoint(name)
    puzzles = read_packed(data, limit)
    with progress("trajectories") as bar:
        shown = bar.add_task("calibrate", total=len(puzzles) * breadth)
        card = calibrate(
            folder,
            puzzles,
            depth=depth,
            breadth=breadth,
            seed=seed,
            target=target,
            least_recall=least_recall,
            data=data.name,
            compiled=compiled,
            on_rows=lambda rows: bar.update(shown, advance=rows),
        )
    if as_json:
        typer.echo(json.dumps({"tolerance": card.tolerance, **card.calibration}))
        return
    typer.echo(f"{card.name}: tolerance {_tolerance(card)}, rule {card.calibration['rule']}")
    for field in ("precision", "recall"):
        if field in card.calibration:
            share = card.calibration[field]
            typer.echo(f"{field} {share['share']:.2%} ({share['count']} of {share['total']})")


SUMMARY = (
    *("name", "task", "sizes", "parameters", "tolerance", "digest", "license"),
    *(f"operator.{name}" for name in ("mixer", "hidden", "blocks", "cycles", "updates", "states")),
    *("operator.frame", "calibration.data", "calibration.puzzles"),
    *("calibration.precision.share", "calibration.recall.share"),
    *("training.recipe.name", "training.done", "training.samples", "training.seconds"),
    *("training.code", "description"),
)
"""Fields of a card that `show` prints, those that it has."""

RESULT_COLUMNS = {
    "data": "data",
    "rows": "rows",
    "depth": "depth",
    "breadth": "breadth",
    "stop": "stop",
    "exact_accuracy": "exact",
    "converged": "converged",
    "mean_nfe": "NFE",
}
"""Fields of a result that the table shows, by their headings; `--json` has all of them."""
SHARES = ("exact_accuracy", "converged")


def _results(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="results", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for field, heading in RESULT_COLUMNS.items():
        table.add_column(
            heading, justify="left" if field in ("data", "stop") else "right", overflow="fold"
        )
    for result in results:
        table.add_row(*(_shown(field, result.get(field)) for field in RESULT_COLUMNS))
    return table


def _shown(field: str, value: Any) -> str:
    if field in SHARES and isinstance(value, int | float):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:.1f}"
    return "" if value is None else str(value)


def _tolerance(card: Card) -> str:
    return "none" if card.tolerance is None else f"{card.tolerance:.4g}"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((prefix + key, value if isinstance(value, str) else json.dumps(value)))
    return rows

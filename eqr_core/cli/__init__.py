"""The command line `eqr`, as far as the library goes; the service adds its own commands.

Exit codes: 0 good, 1 the work failed, 2 bad usage or bad input, 130 interrupted. An error is one
line on standard error. Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import typer

from eqr_core.cli.bench import bench
from eqr_core.cli.data import data
from eqr_core.cli.evaluate import evaluate, parity
from eqr_core.cli.generate import generate
from eqr_core.cli.group import Commands
from eqr_core.cli.models import models
from eqr_core.cli.solve import solve
from eqr_core.cli.train import train

app = typer.Typer(
    name="eqr",
    cls=Commands,
    help="Solve puzzles by iterating a learned operator to a fixed point.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("solve")(solve)
app.command("eval")(evaluate)
app.command("train")(train)
app.command("parity")(parity)
app.add_typer(generate, name="generate")
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line."""
    app()

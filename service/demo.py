"""`python -m service.demo` (`make run`): start the service, solve one puzzle, draw it, stay up."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer
from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from eqr_core.cli.drawing import draw_grid
from eqr_core.cli.group import Commands
from eqr_core.tasks import parse_grid
from service.client import EqrClient
from service.local import farewell, local_service, wait_for_stop
from service.schemas import SolveAnswer
from service.settings import read_settings

PUZZLE = "..46..5...1.........9..7.1.5....48...3....6....795....9......871...........7.3..2"
"""22 clues, made for this demonstration: a random full grid, clues taken away in random order as
long as one solution remained, until none could go. Of 2,060 puzzles made so, the one on which a
backtracking search that fills single candidates guessed wrong most often: 3,679 times."""

BUDGET = {"depth": 64, "breadth": 32}

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    once: Annotated[bool, typer.Option(help="Stop after the puzzle.")] = False,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Start the service on a local Ray, solve one puzzle over HTTP, draw it, and stay up."""
    console = Console()
    settings = read_settings(port=port)
    console.print("Starting the service on a local Ray …")
    with local_service(settings) as server, EqrClient(server) as client:
        console.print(drawn(client.solve(PUZZLE, budget=BUDGET)))
        console.print("The same again:", style="dim")
        console.print(Text(curl(server)), soft_wrap=True)
        grpc = f"   gRPC: port {settings.grpc_port}" if settings.grpc_port else ""
        console.print(
            f"\nplayground: {server}/   API: {server}/docs\nmetrics: {server}/metrics{grpc}",
            highlight=False,
        )
        if not once:
            console.print("The service stays up until Ctrl-C.", style="bold")
            wait_for_stop()
            Console(stderr=True).print(farewell(settings))


def curl(server: str) -> str:
    """The shell command that repeats the solve."""
    body = shlex.quote(json.dumps({"grid": PUZZLE, "budget": BUDGET}, separators=(",", ":")))
    return f"curl -s {server}/solve -H 'Content-Type: application/json' -d {body}"


def drawn(answer: SolveAnswer) -> Group:
    """Puzzle and answer side by side, and what the solve took."""
    task, clues = parse_grid(PUZZLE)
    filled = tuple(tuple(row) for row in answer.grid)
    side_by_side = Columns(
        [
            Panel(draw_grid(task, clues, clues), title="puzzle", expand=False),
            Panel(draw_grid(task, clues, filled), title="answer", expand=False),
        ],
        expand=False,
    )
    return Group(side_by_side, _facts(answer))


def _facts(answer: SolveAnswer) -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column()
    residual = "not finite" if answer.residual is None else f"{answer.residual:.2e}"
    breadth, timing = answer.breadth, answer.timing_ms
    rows = {
        "model": answer.model,
        "finish reason": answer.finish_reason,
        "verified": "yes" if answer.verified else "no",
        "residual": residual,
        "iterations": f"{answer.iterations} ({answer.layers:,} layers)",
        "NFE": f"{answer.nfe}",
        "breadth": f"{breadth.started} started, {breadth.converged} converged, {breadth.lost} lost",
        "agreement": f"{answer.agreement:.0%}",
        "confidence": "not calibrated" if answer.confidence is None else f"{answer.confidence:.1%}",
        "time": f"{timing.total:.0f} ms (queue {timing.queue:.0f}, solve {timing.solve:.0f})",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    app()

"""The command line `eqr`: the library's commands, `serve`, and `solve` with ``--server``.

Only typer is needed here; Ray and httpx are imported by the commands that use them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from eqr_core.cli import app as library
from eqr_core.cli import options
from eqr_core.cli.drawing import draw_grid, summary
from eqr_core.cli.group import Commands
from eqr_core.cli.solve import read_grid
from eqr_core.cli.solve import solve as solve_here
from eqr_core.errors import EqrError


class MissingExtra(EqrError):
    """A command that needs packages of an extra that is not installed."""

    exit_code = 2

    def __init__(self, command: str, missing: str | None) -> None:
        super().__init__(f"eqr {command} needs {missing}: pip install 'eqr[service]'")


app = typer.Typer(
    name="eqr",
    cls=Commands,
    help=library.info.help,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.registered_commands += [one for one in library.registered_commands if one.name != "solve"]
app.registered_groups += library.registered_groups


@app.command("solve")
def solve(
    grid: Annotated[str, typer.Argument(help="The grid as digits, . or 0 for blanks; - reads it.")],
    server: Annotated[
        str | None, typer.Option(help="Address of a service; without it, solve in this process.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or folder of a checkpoint.")] = None,
    task: Annotated[str | None, typer.Option(help="Task, where the grid does not tell.")] = None,
    depth: options.Depth = 64,
    breadth: options.Breadth = 16,
    nfe: options.Nfe = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Time limit in ms.")] = None,
    tolerance: options.Tolerance = None,
    stop: options.Stop = "converged",
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Solve one grid and draw the answer."""
    budget: dict[str, Any] = {
        "depth": depth,
        "breadth": breadth,
        "nfe": nfe,
        "deadline_ms": deadline_ms,
        "tolerance": tolerance,
        "stop": stop,
    }
    choice: dict[str, Any] = {
        "model": model,
        "task": task,
        "seed": seed,
        "noise": noise,
        "selection": selection,
    }
    if server is None:
        solve_here(grid, **choice, **budget, as_json=as_json)
    else:
        _solve_there(server, read_grid(grid), {**choice, "budget": budget}, as_json)


def _solve_there(server: str, grid: str, options: dict[str, Any], as_json: bool) -> None:
    try:
        from service.client import EqrClient
    except ModuleNotFoundError as error:
        raise MissingExtra("solve --server", error.name) from None
    from eqr_core.tasks import parse_grid

    with EqrClient(server) as client:
        document = client.solve(grid, **options).model_dump()
    if as_json:
        typer.echo(json.dumps(document))
        return
    task, clues = parse_grid(grid, document["task"])
    console = Console()
    console.print(draw_grid(task, clues, document["grid"]))
    console.print(summary(document), highlight=False)


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Names or folders of checkpoints, comma-separated.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Trajectories run at a time.")] = None,
    queue: Annotated[int | None, typer.Option(help="Requests that may wait.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Solver replicas.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs for the local Ray.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Largest request body.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Deadline of a request that names none.")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="How long running solves may go on after a stop signal.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Start the service on a local Ray. Every option is also a variable: --max-body-bytes is
    EQR_MAX_BODY_BYTES. SIGTERM or Ctrl-C drains: no new solves, running ones end.
    """
    given = dict(locals())
    try:
        from service.local import local_service, wait_for_stop
        from service.settings import read_settings
    except ModuleNotFoundError as error:
        raise MissingExtra("serve", error.name) from None
    settings = read_settings(**given)
    with local_service(settings) as server:
        typer.echo(f"serving at {server}, API at {server}/docs")
        wait_for_stop()
        typer.echo("draining", err=True)


def main() -> None:
    """Run the command line."""
    app()

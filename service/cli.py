"""The command line `eqr`: the library's commands, `serve`, `bench serve`, `solve --server`,
`train --ray`.

Only typer is needed here; Ray and httpx are imported by the commands that use them.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any

import typer
from rich.console import Console

from eqr_core.cli import app as library
from eqr_core.cli import options
from eqr_core.cli import training_options as training
from eqr_core.cli.bench import bench
from eqr_core.cli.drawing import draw_grid, summary
from eqr_core.cli.group import Commands
from eqr_core.cli.solve import read_grid
from eqr_core.cli.solve import solve as solve_here
from eqr_core.cli.train import choose, conclude
from eqr_core.cli.train import train as train_here
from eqr_core.engine.budget import Budget
from service.bench.command import serve as bench_serve
from service.bench.servers import servers as bench_servers
from service.extras import MissingExtra
from service.key_file import KeyFile, key_in

app = typer.Typer(
    name="eqr",
    cls=Commands,
    help=library.info.help,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
REPLACED = ("solve", "train")
app.registered_commands += [one for one in library.registered_commands if one.name not in REPLACED]
app.registered_groups += library.registered_groups
bench.command("serve")(bench_serve)
bench.command("servers")(bench_servers)


@app.command("solve")
def solve(
    grid: options.Grid,
    server: Annotated[
        str | None, typer.Option(help="Address of a service; without it, solve in this process.")
    ] = None,
    api_key_file: KeyFile = None,
    model: options.Model = None,
    task: options.Task = None,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    nfe: options.Nfe = None,
    deadline_ms: options.DeadlineMs = None,
    tolerance: options.Tolerance = None,
    stop: options.Stop = Budget.stop,
    halt: options.Halt = Budget.halt,
    patience: options.Patience = None,
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    as_json: options.AsJson = False,
) -> None:
    """Solve one grid and draw the answer."""
    given = dict(locals())
    key = key_in(given.pop("api_key_file"))
    if given.pop("server") is None:
        if key is not None:
            raise typer.BadParameter("it needs --server", param_hint="--api-key-file")
        solve_here(**given)
    else:
        text = read_grid(given.pop("grid"))
        limits = {field.name: given.pop(field.name) for field in fields(Budget)}
        given.pop("as_json")
        _solve_there(str(server), key, text, limits, given, as_json)


def _solve_there(
    server: str,
    key: str | None,
    text: str,
    limits: dict[str, Any],
    choice: dict[str, Any],
    as_json: bool,
) -> None:
    try:
        from service.client import EqrClient

        client = EqrClient(server, api_key=key)
    except ModuleNotFoundError as error:
        raise MissingExtra("solve --server", error.name, "client") from None
    from eqr_core.engine.answer import SolveRequest
    from eqr_core.tasks import parse_grid

    task, clues = parse_grid(text, choice["task"])
    # Checks the rest, as a solve in this process would.
    SolveRequest(
        task,
        clues,
        choice["model"] or "",
        Budget(**limits),
        seed=choice["seed"],
        noise=choice["noise"],
        selection=choice["selection"],
    )
    with client:
        document = client.solve(text, **choice, budget=limits).model_dump()
    if as_json:
        typer.echo(json.dumps(document))
        return
    console = Console()
    console.print(draw_grid(task, clues, document["grid"]))
    console.print(summary(document), highlight=False)


@app.command("train")
def train(
    recipe: training.Recipe,
    out: training.Out = None,
    data: training.Data = None,
    start: training.Start = None,
    minutes: training.Minutes = None,
    within: training.Within = None,
    seed: training.Seed = None,
    device: training.Device = "auto",
    rehearse: training.Rehearse = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Train on the Ray cluster that RAY_ADDRESS names, or a Ray started here."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="With --ray: how many share each batch; 1 if not given.")
    ] = None,
    gpus: Annotated[
        bool, typer.Option("--gpus", help="With --ray: a GPU for each worker.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            help="With --ray: folder or URI (s3://…) for checkpoints, which every worker reaches; "
            "OUT/ray if not given."
        ),
    ] = None,
) -> None:
    """Train a checkpoint into OUT/best; where OUT holds this run already, go on with it."""
    if not ray:
        for name, given in (("workers", workers), ("gpus", gpus or None), ("storage", storage)):
            if given is not None:
                raise typer.BadParameter("it needs --ray", param_hint=f"--{name}")
        train_here(recipe, out, data, start, minutes, within, seed, device, rehearse)
        return
    if rehearse:
        raise typer.BadParameter("it runs without Ray; leave out --ray", param_hint="--rehearse")
    if device != "auto":
        raise typer.BadParameter("with --ray, --gpus decides", param_hint="--device")
    chosen, folder = choose(recipe, out, data, seed)
    try:
        from service.train_job import TrainJob, run_job
    except ImportError as error:
        raise MissingExtra("train --ray", error.name, "train") from None
    job = TrainJob(
        chosen,
        folder,
        1 if workers is None else workers,
        gpus=gpus,
        storage=storage,
        files=tuple(data or []),
        start=start,
        within=within,
        minutes=minutes,
    )
    result = run_job(job)
    conclude(chosen, folder, result.progress, result.done, result.best, result.interrupted)


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC; 0: no gRPC.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Names or folders of checkpoints, comma-separated.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Trajectories run at a time.")] = None,
    queue: Annotated[int | None, typer.Option(help="Requests that may wait.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Solver replicas, at least.")] = None,
    max_replicas: Annotated[
        int | None, typer.Option(help="Solver replicas under load; without it, no more.")
    ] = None,
    backlog_seconds: Annotated[
        float | None, typer.Option(help="More replicas where the work in hand takes longer.")
    ] = None,
    idle_seconds: Annotated[
        float | None, typer.Option(help="Fewer replicas when they have been too many so long.")
    ] = None,
    solver_cpus: Annotated[
        float | None, typer.Option(help="CPUs of a solver; without it, half of --cpus for all.")
    ] = None,
    solver_gpus: Annotated[
        float | None, typer.Option(help="GPUs of a solver; 0: it computes on its CPUs.")
    ] = None,
    ingresses: Annotated[
        int | None, typer.Option(help="Ingress replicas; without it 2 from 4 CPUs on, else 1.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs for the local Ray.")] = None,
    fanout_workers: Annotated[
        int | None, typer.Option(help="Most shards of a request at a time; 0: no fan-out.")
    ] = None,
    fanout_cpus: Annotated[float | None, typer.Option(help="CPUs of a shard.")] = None,
    fanout_gpus: Annotated[float | None, typer.Option(help="GPUs of a shard.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Largest request body.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Deadline of a request that names none.")
    ] = None,
    progress_per_second: Annotated[
        float | None, typer.Option(help="Most progress events of a stream in a second.")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="How long running solves may go on after a stop signal.")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(help="Most requests of a batch or job.")] = None,
    max_depth: Annotated[int | None, typer.Option(help="Largest depth of a budget.")] = None,
    max_breadth: Annotated[int | None, typer.Option(help="Largest breadth of a budget.")] = None,
    max_nfe: Annotated[
        int | None, typer.Option(help="Most outer steps that a budget may come to.")
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            help="redis:// or unix:// URL of the store; without it one is started. With a password "
            "in it, better the variable."
        ),
    ] = None,
    store_dir: Annotated[str | None, typer.Option(help="Folder of the store started here.")] = None,
    cache_seconds: Annotated[float | None, typer.Option(help="How long answers are kept.")] = None,
    idempotency_seconds: Annotated[
        float | None, typer.Option(help="How long an Idempotency-Key counts.")
    ] = None,
    job_seconds: Annotated[
        float | None, typer.Option(help="How long a job may wait and run.")
    ] = None,
    job_result_seconds: Annotated[
        float | None, typer.Option(help="How long a job's results are kept.")
    ] = None,
    job_items: Annotated[
        int | None, typer.Option(help="Items of jobs that run at a time in an ingress.")
    ] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs that may wait or run.")] = None,
    api_keys_file: Annotated[
        str | None, typer.Option(help="File of API keys; see eqr keys new.")
    ] = None,
    cors_origins: Annotated[
        str | None, typer.Option(help="Origins whose pages may call, comma-separated; *: all.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Start the service on a local Ray. Every option is also a variable: --max-body-bytes is
    EQR_MAX_BODY_BYTES. SIGTERM or Ctrl-C drains: no new solves, running ones end.
    """
    given = dict(locals())
    try:
        from service.local import farewell, local_service, wait_for_stop
        from service.settings import read_settings
    except ModuleNotFoundError as error:
        raise MissingExtra("serve", error.name) from None
    settings = read_settings(**given)
    with local_service(settings) as server:
        grpc = f", gRPC on port {settings.grpc_port}" if settings.grpc_port else ""
        typer.echo(f"serving at {server}{grpc}, API at {server}/docs")
        wait_for_stop()
        typer.echo(farewell(settings), err=True)


keys = typer.Typer(cls=Commands, no_args_is_help=True, help="API keys of the service.")
app.add_typer(keys, name="keys")


@keys.callback()
def _keys() -> None:
    """API keys of the service."""


@keys.command("new")
def new_api_key(
    name: Annotated[str, typer.Argument(help="Whom the key is for.")],
) -> None:
    """Make a key. Its first line of output is for its owner alone; the second one, which holds
    only its digest, goes into the file of --api-keys-file, where limits may be added to it:
    "rate_per_minute" and "nfe_per_day".
    """
    try:
        from service.security import new_key
    except ModuleNotFoundError as error:
        raise MissingExtra("keys", error.name) from None
    for line in new_key(name):
        typer.echo(line)


def main() -> None:
    """Run the command line."""
    app()

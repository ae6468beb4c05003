"""Kill a loaded service's processes, one after the other, and see what its clients see."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from redis import Redis
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.chaos.kills import POLL_SECONDS, DurableStore, Kill, Killer, schedule
from benchmarks.chaos.ledger import Known, Ledger, Question, known_of
from benchmarks.chaos.load import Load, options
from benchmarks.chaos.node import node_beside
from benchmarks.chaos.report import document_of, show
from benchmarks.local import NotServing, Service, local_service
from benchmarks.processes import find
from eqr_core.cli.group import Commands
from eqr_core.cli.options import AsJson
from eqr_core.data.benchmark import find_puzzles
from eqr_core.data.puzzles import read_puzzles
from service.client import AsyncEqrClient

CALM_SECONDS = 3.0
"""Of load before each kill."""
AUDIT_SECONDS = 180.0
WIDE_QUESTIONS = 4
WORKER_TRIES = 60


app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    kills: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    replicas: Annotated[int, typer.Option(help="Solver replicas.", min=1)] = 2,
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    questions: Annotated[int, typer.Option(help="Puzzles of the benchmark.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Decides order, victims and load.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Start a service and a store, load them, and kill -9 a solver, an ingress, HAProxy, the store
    or a fan-out worker again and again.

    Exit 1 where a bar is broken; Ctrl-C ends with what there is.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        # Unix sockets want short paths, so not within the service's folder.
        tempfile.TemporaryDirectory(prefix="eqr-") as folder,
    ):
        bar = progress.add_task("the service starts")

        def tell(text: str) -> None:
            progress.update(bar, description=text)

        store = DurableStore(Path(folder) / "store")
        flags = ["--models", model, "--replicas", str(replicas), "--store-url", store.url]
        try:
            with local_service(*flags) as service, node_beside(service) as node:
                run = Run(service, node, store, questions, seed)
                asyncio.run(run.run(schedule(kills, seed), tell))
        finally:
            store.kill()
    document = document_of(run.kills, run.ledger, kills, run.interrupted)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(document, Console())
    raise typer.Exit(130 if run.interrupted else 0 if document["passed"] else 1)


class Run:
    """One run: what is known without disturbance, then the kills, then the audit of the jobs."""

    def __init__(
        self, service: Service, node: int, store: DurableStore, questions: int, seed: int
    ) -> None:
        self._service, self._node, self._store, self._seed = service, node, store, seed
        rows = list(read_puzzles(find_puzzles(Path("benchmark")), questions))
        self._questions = [
            Question(row.question, row.answer, number, wide)
            for wide, some in ((False, rows), (True, rows[:WIDE_QUESTIONS]))
            for number, row in enumerate(some)
        ]
        self.ledger = Ledger({})
        self.kills: list[Kill] = []
        self.interrupted = False

    async def run(self, kinds: list[str], tell: Any) -> None:
        """Kill in the order of `kinds`, telling how it goes."""
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        try:
            tell("the service measures its workers")
            await self._wait_for_workers()
            tell("every puzzle once, undisturbed")
            self.ledger = Ledger(await self._known())
            load = Load(self._service, self._questions, self.ledger, self._seed)
            loading = asyncio.create_task(load.run())
            try:
                await self._kill_all(kinds, load, loading, tell)
            finally:
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
            tell("the jobs are read to their ends")
            await self._audit(load)
            await load.close()
        except asyncio.CancelledError:
            self.interrupted = True

    async def _wait_for_workers(self) -> None:
        """Until a wide request is shared. NotServing where none ever is."""
        wide = next(question for question in self._questions if question.wide)
        async with AsyncEqrClient(self._service.rest) as client:
            for _ in range(WORKER_TRIES):
                asking = asyncio.create_task(client.solve(**options(wide, False)))
                while not asking.done():
                    if await asyncio.to_thread(find, self._node, "worker"):
                        await asking
                        return
                    await asyncio.sleep(POLL_SECONDS / 10)
                await asking
                await asyncio.sleep(1.0)
        raise NotServing("no wide request was shared with the second node's workers")

    async def _known(self) -> dict[Question, Known]:
        async with AsyncEqrClient(self._service.rest) as client:
            return {
                question: known_of(await client.solve(**options(question, False, deadline=False)))
                for question in self._questions
            }

    async def _kill_all(
        self, kinds: list[str], load: Load, loading: asyncio.Task[None], tell: Any
    ) -> None:
        killer = Killer(self._service.pid, self._node, self._store, load, self.ledger, self._seed)
        for number, kind in enumerate(kinds, 1):
            faults = len(self.ledger.faults)
            tell(f"{number} of {len(kinds)}: {kind}, {faults} faults so far")
            await asyncio.sleep(CALM_SECONDS)
            if loading.done():
                loading.result()
            self.kills.append(await killer.kill(number, kind))

    async def _audit(self, load: Load) -> None:
        """Every accepted job has ended as it must, and there is no other."""
        names = list(self.ledger.jobs)
        await asyncio.gather(*(load.follow(name, AUDIT_SECONDS) for name in names))
        self.ledger.faults += [f"job {name} has not ended" for name in self.ledger.unended]
        with Redis(unix_socket_path=str(self._store.path), protocol=2) as redis:
            stored = {key for key in redis.scan_iter("eqr:job:*") if not key.endswith(b":items")}
        self.ledger.count_jobs(len(stored))


if __name__ == "__main__":
    app()

"""`eqr bench servers`: the engine beside static batches behind Ray Serve and LitServe."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from eqr_core.cli import options
from eqr_core.cli.bench import Batch, Concurrency, Data, Limit, activity, read_fixed
from eqr_core.engine.budget import Budget
from service.extras import MissingExtra

if TYPE_CHECKING:
    from eqr_core.bench.workload import Workload
    from eqr_core.evaluation.rows import Puzzle

KINDS = ("eager", "compiled", "native")


def servers(
    fixed: Annotated[
        str,
        typer.Option(
            help="Depth x breadth of static batches, such as 64x8: what eqr bench engine found."
        ),
    ],
    model: Annotated[str, typer.Option(help="Name or folder of a checkpoint.")] = "sudoku",
    data: Data = Path("benchmark"),
    limit: Limit = 128,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    concurrency: Concurrency = 64,
    slots: options.Slots = 64,
    batch: Batch = 64,
    kind: Annotated[str, typer.Option(help="What computes batches: eager, compiled, native.")] = (
        "compiled"
    ),
    as_json: options.AsJson = False,
) -> None:
    """Puzzles a second by the clock: the engine behind asyncio, and static batches behind servers.

    All of them one after the other in one run, the engine between them; a server's rate counts
    against the engine's before and after it.
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(KINDS)}", param_hint="--kind")
    budget_of_batches = read_fixed(fixed)
    budget = Budget(depth, breadth)
    try:
        import litserve  # noqa: F401
        from ray import serve  # noqa: F401

        from service.bench.rivals import Rival, lit_serve, measure, ray_serve
    except ModuleNotFoundError as error:
        raise MissingExtra("bench servers", error.name, "bench") from None
    import torch

    from eqr_core.bench.workload import Workload
    from eqr_core.data.benchmark import find_puzzles
    from eqr_core.evaluation.rows import read_rows

    workload = Workload.of(model, read_rows(find_puzzles(data), limit))
    texts = [puzzle.task.text(puzzle.grid) for puzzle in workload.puzzles]
    rival = Rival(
        str(workload.checkpoint.resolve()),
        texts[0],
        kind,  # type: ignore[arg-type]
        budget_of_batches.depth,
        budget_of_batches.breadth,
        batch,
        torch.get_num_threads(),
    )
    items = list(enumerate(texts))
    round_of = [(text, seed) for seed, text in islice(cycle(items), max(limit, batch))]

    def engine_rate() -> tuple[float, float]:
        return asyncio.run(_engine(workload, budget, concurrency, slots))

    contexts: dict[str, AbstractContextManager[Callable[[Any], Awaitable[str]]]] = {
        "Ray Serve, @serve.batch": ray_serve(rival),
        "LitServe": lit_serve(rival),
    }
    rates = [engine_rate()]
    document: dict[str, Any] = {"kind": kind, "fixed": fixed, "rows": []}
    with activity() as note:
        for name, server in contexts.items():
            note(name)
            with server as ask:
                seconds, answers = measure(ask, round_of, concurrency)
            rates.append(engine_rate())
            rate = len(round_of) / seconds
            right = sum(
                answer == puzzle.task.text(puzzle.answer)
                for answer, puzzle in zip(answers, cycle(workload.puzzles), strict=False)
            )
            ours = (rates[-2][0] + rates[-1][0]) / 2
            document["rows"].append(
                {
                    "name": name,
                    "puzzles_per_second": rate,
                    "accuracy": right / len(answers),
                    "engine_per_second": ours,
                    "engine_is": ours / rate,
                }
            )
    document["engine"] = [{"puzzles_per_second": r, "accuracy": a} for r, a in rates]
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(document)


async def _engine(
    workload: Workload, budget: Budget, concurrency: int, slots: int
) -> tuple[float, float]:
    """Puzzles a second through the asyncio front, and the share that is right."""
    from eqr_core.engine.answer import SolveRequest
    from eqr_core.engine.async_engine import AsyncEngine
    from eqr_core.engine.engine import Engine

    front = AsyncEngine(Engine([workload.checkpoint], slots=slots))
    front.start()
    gate = asyncio.Semaphore(concurrency)

    async def one(seed: int, puzzle: Puzzle) -> bool:
        async with gate:
            answer = await front.submit(
                SolveRequest(puzzle.task, puzzle.grid, workload.card.name, budget, seed=seed)
            )
        return bool(answer.grid == puzzle.answer)

    try:
        await one(0, workload.puzzles[0])
        begin = time.perf_counter()
        right = await asyncio.gather(*(one(i, p) for i, p in enumerate(workload.puzzles)))
        return len(right) / (time.perf_counter() - begin), sum(right) / len(right)
    finally:
        front.stop()


def _show(document: dict[str, Any]) -> None:
    table = Table("", title="puzzles a second, by the clock", title_justify="left")
    for name in ("puzzles/s", "exact", "the engine's", "engine is"):
        table.add_column(name, justify="right")
    for row in document["rows"]:
        table.add_row(
            f"{row['name']}, {document['kind']}, {document['fixed']}",
            f"{row['puzzles_per_second']:,.3g}",
            f"{row['accuracy']:.1%}",
            f"{row['engine_per_second']:,.3g}",
            f"{row['engine_is']:,.1f}x",
        )
    Console().print(table)

"""Static batches behind the servers that people would use: Ray Serve and LitServe.

Both get the operator of `eqr_core.bench.static` and its fixed budget, and batch as they advise.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import IO, Any

import httpx

from eqr_core.bench.static import Arithmetic, StaticBatches
from eqr_core.errors import EqrError
from eqr_core.model.checkpoint import build_operator, find_checkpoint, load_checkpoint
from eqr_core.tasks import parse_grid

Item = tuple[str, int]
"""A puzzle's text and its seed."""

POLL_SECONDS = 0.2
BATCH_WAIT_SECONDS = 0.05
"""For a batch to fill."""
OBJECT_STORE_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True)
class Rival:
    """What a server is given."""

    checkpoint: str
    puzzle: str
    """Any puzzle of the size that it solves."""
    arithmetic: Arithmetic
    depth: int
    breadth: int
    batch: int
    threads: int

    def solver(self) -> Callable[[Sequence[Item]], list[str]]:
        """Solves a batch. It is filled up to its full size, for which code was compiled."""
        import torch

        torch.set_num_threads(self.threads)
        weights, card = load_checkpoint(find_checkpoint(self.checkpoint))
        task, _ = parse_grid(self.puzzle)
        batches = StaticBatches(
            build_operator(weights, card, task).requires_grad_(False), self.arithmetic
        )

        def solve(items: Sequence[Item]) -> list[str]:
            full = list(islice(cycle(items), self.batch))
            grids = [parse_grid(text, task.name)[1] for text, _ in full]
            answers = batches.solve(grids, [seed for _, seed in full], self.depth, self.breadth)
            return [task.text(grid) for grid in answers[: len(items)]]

        return solve


@contextmanager
def ray_serve(rival: Rival) -> Iterator[Callable[[Item], Awaitable[str]]]:
    """A deployment with `@serve.batch`, asked through its handle: no HTTP in between."""
    import ray
    from ray import serve

    class Static:
        def __init__(self) -> None:
            self._solve = rival.solver()

        @serve.batch(max_batch_size=rival.batch, batch_wait_timeout_s=BATCH_WAIT_SECONDS)
        async def batch(self, items: list[Item]) -> list[str]:
            return self._solve(items)

        async def __call__(self, item: Item) -> Any:
            return await self.batch(item)

    options: dict[str, Any] = {
        "max_ongoing_requests": 16 * rival.batch,
        "ray_actor_options": {"num_cpus": 1},
    }
    deployment: Any = serve.deployment(**options)(Static)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        serve.start(proxy_location="Disabled")
        handle: Any = serve.run(deployment.bind(), name="rival", route_prefix=None)

        async def ask(item: Item) -> str:
            answer: str = await handle.remote(item)
            return answer

        yield ask
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


@contextmanager
def lit_serve(rival: Rival) -> Iterator[Callable[[Item], Awaitable[str]]]:
    """A LitServe server with its batching in a process of its own, asked over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = [sys.executable, "-m", "service.bench.litserve", json.dumps(asdict(rival)), str(port)]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(script, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_until_healthy(process, url, log)
            client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))

            async def ask(item: Item) -> str:
                body = {"grid": item[0], "seed": item[1]}
                answer = await client.post(f"{url}/predict", json=body)
                answer.raise_for_status()
                text: str = answer.json()["text"]
                return text

            yield ask
        finally:
            with suppress(ProcessLookupError):  # its workers may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure(
    ask: Callable[[Item], Awaitable[str]], items: Sequence[Item], concurrency: int
) -> tuple[float, list[str]]:
    """Seconds by the clock and the answers to all `items`, `concurrency` at a time.

    One request goes first, so that what is made once is made: every batch is of full size.
    """

    async def run(asked: Sequence[Item]) -> list[str]:
        gate = asyncio.Semaphore(concurrency)

        async def one(item: Item) -> str:
            async with gate:
                return await ask(item)

        return list(await asyncio.gather(*map(one, asked)))

    async def both() -> tuple[float, list[str]]:
        await run(items[:1])
        begin = time.perf_counter()
        answers = await run(items)
        return time.perf_counter() - begin, answers

    return asyncio.run(both())


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    while True:
        if process.poll() is not None:
            log.seek(0)
            lines = log.read().strip().splitlines()
            raise EqrError(f"LitServe ended: {lines[-1] if lines else process.returncode}")
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)

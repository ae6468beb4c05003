"""What a shard's Ray task does: an engine of its own, one shard at a time.

torch and Ray are imported in the task alone. The process keeps its engines from task to task, so
only the first shard of a checkpoint fetches the weights.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eqr_core.engine.answer import Answer, Progress, SolveRequest

if TYPE_CHECKING:
    from eqr_core.engine.engine import Engine

REPORT_SECONDS = 0.05
"""A running shard tells where it stands so often."""

MAX_ENGINES = 4

_engines: dict[str, Engine] = {}
"""Of this process, by `Packed.key`; the one used last stands last."""


@dataclass(frozen=True)
class Packed:
    """A checkpoint as it travels through the object store."""

    weights: bytes
    """safetensors."""
    card: str
    """JSON; it holds the digest of the weights."""

    @property
    def key(self) -> str:
        """What engines are kept by: the same weights with another tolerance are another engine."""
        return hashlib.sha256(self.card.encode()).hexdigest()


@dataclass(frozen=True)
class ShardOrder:
    """What a worker needs to run one shard, but for the weights."""

    request: SolveRequest
    end: float
    """Wall clock at which the deadline passes, in seconds since 1970."""
    key: str
    """`Packed.key` of the weights."""
    arithmetic: str
    """What the answer is computed with: another processor may round differently."""
    device: str
    slots: int
    threads: int


@dataclass(frozen=True)
class Began:
    """The first report of a shard: it has a worker, and the worker has the weights."""


@dataclass(frozen=True)
class Unlike:
    """The worker computes with another arithmetic, so the answer would not be the same."""

    arithmetic: str
    node: str
    """Ray's id of the node that the worker is on."""


Report = Began | Unlike | Progress | Answer


def pack(engine: Engine, model: str) -> Packed:
    """The checkpoint of `model` as plain bytes."""
    from safetensors.torch import save

    weights, card = engine.checkpoint(model)
    return Packed(save(weights), card.to_json())


def run_shard(order: ShardOrder, references: Sequence[Any]) -> Iterator[Report]:
    """Run a shard in this process; its answer comes last, unless it is recalled or late.

    `references` are that to `Packed`, and one that is ready once the shard is recalled: inside a
    list Ray does not fetch them before the task begins, and the weights are fetched only where no
    engine of that key is kept. Raises what Ray raises when whoever would recall it has died.
    """
    packed, over = references
    recalled: Future[None] = over.future()
    engine = _engines.pop(order.key, None) or _unpack(order, packed)
    import ray
    import torch

    torch.set_num_threads(order.threads)
    (name,) = engine.models
    found = engine.arithmetic(name)
    if found == order.arithmetic:
        yield Began()
        yield from solve(engine, order, recalled)
    else:
        yield Unlike(found, ray.get_runtime_context().get_node_id())
    _engines[order.key] = engine  # not before, as one that has raised is not used again
    while len(_engines) > MAX_ENGINES:
        del _engines[next(iter(_engines))]


def solve(engine: Engine, order: ShardOrder, recalled: Future[None]) -> Iterator[Progress | Answer]:
    """Run the shard of `order` and tell of it; once it is recalled no outer step begins."""
    left_ms = (order.end - time.time()) * 1e3
    if left_ms <= 0 or recalled.done():
        return
    budget = order.request.budget
    # Clocks of two machines may differ; no shard gets more than its request had.
    limit = left_ms if budget.deadline_ms is None else min(left_ms, budget.deadline_ms)
    shard = engine.submit(replace(order.request, budget=replace(budget, deadline_ms=limit)))
    told = time.monotonic()
    while not (answers := engine.step()):
        now = time.monotonic()
        if recalled.done():
            engine.cancel(shard)
        elif now - told >= REPORT_SECONDS and (progress := engine.progress(shard)):
            told = now
            yield progress
    if recalled.done():
        recalled.result()
    else:
        yield answers[0]


def _unpack(order: ShardOrder, packed: Any) -> Engine:
    import ray
    from safetensors.torch import load

    from eqr_core.engine.engine import Engine
    from eqr_core.model.card import Card

    found: Packed = ray.get(packed)
    loaded = load(found.weights), Card.from_json(found.card)
    return Engine.of([loaded], slots=order.slots, device=order.device)

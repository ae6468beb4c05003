"""What a shard's Ray task does: an engine of its own, one shard at a time.

torch is imported in the task alone. The process keeps its engines from task to task, so only the
first shard of a checkpoint fetches the weights.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.errors import EngineStopped

if TYPE_CHECKING:
    from eqr_core.engine.engine import Engine

REPORT_SECONDS = 0.05
"""A running shard tells where it stands so often, and so notices that it is cancelled."""

MAX_ENGINES = 4

_engines: dict[str, Engine] = {}
"""Of this process, by `Packed.key`; the one used last stands last."""
_preparing = threading.Lock()


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
    slots: int
    threads: int


@dataclass(frozen=True)
class Began:
    """The first report of a shard: it has a worker, and the worker has the weights."""


@dataclass(frozen=True)
class Unlike:
    """The worker computes with another arithmetic, so the answer would not be the same."""

    arithmetic: str


Report = Began | Unlike | Progress | Answer


def pack(engine: Engine, model: str) -> Packed:
    """The checkpoint of `model` as plain bytes."""
    from safetensors.torch import save

    weights, card = engine.checkpoint(model)
    return Packed(save(weights), card.to_json())


def run_shard(order: ShardOrder, packed: Sequence[Any]) -> Iterator[Report]:
    """Run a shard in this process; its answer comes last, unless the deadline has passed.

    `packed` is a list of one reference to `Packed`: inside a list Ray does not fetch it before the
    task begins, and it is fetched only where no engine of that key is kept.

    Cancelling the task raises KeyboardInterrupt or GeneratorExit here, in the middle of anything.
    An engine that was left in the middle of a tick is not used again.
    """
    preparing = threading.Thread(target=_prepare, args=(order, packed), daemon=True)
    preparing.start()
    preparing.join()
    engine = _engines.pop(order.key, None)
    if engine is None:
        raise EngineStopped("the worker could not make an engine; its log says why")
    import torch

    from eqr_core.engine.runner import arithmetic

    torch.set_num_threads(order.threads)
    (card,) = engine.models.values()
    found = arithmetic(card.operator)
    if found == order.arithmetic:
        yield Began()
        yield from _solve(engine, order)
    else:
        yield Unlike(found)
    _engines[order.key] = engine
    while len(_engines) > MAX_ENGINES:
        del _engines[next(iter(_engines))]


def _solve(engine: Engine, order: ShardOrder) -> Iterator[Progress | Answer]:
    left_ms = (order.end - time.time()) * 1e3
    if left_ms <= 0:
        return
    budget = order.request.budget
    # Clocks of two machines may differ; no shard gets more than its request had.
    limit = left_ms if budget.deadline_ms is None else min(left_ms, budget.deadline_ms)
    shard = engine.submit(replace(order.request, budget=replace(budget, deadline_ms=limit)))
    told = time.monotonic()
    while not (answers := engine.step()):
        now = time.monotonic()
        if now - told >= REPORT_SECONDS and (progress := engine.progress(shard)):
            told = now
            yield progress
    yield answers[0]


def _prepare(order: ShardOrder, packed: Sequence[Any]) -> None:
    """See to it that there is an engine of that key.

    In a thread of its own, which no cancellation reaches: an import of torch that is broken off
    leaves a process in which it can never be imported again.
    """
    with _preparing:
        if order.key not in _engines:
            _engines[order.key] = _unpack(order, packed)


def _unpack(order: ShardOrder, packed: Sequence[Any]) -> Engine:
    import ray
    from safetensors.torch import load

    from eqr_core.engine.engine import Engine
    from eqr_core.model.card import Card

    found: Packed = ray.get(packed[0])
    return Engine.of([(load(found.weights), Card.from_json(found.card))], slots=order.slots)

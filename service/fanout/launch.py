"""Starts shards on the workers of other nodes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.engine import Engine
from service.fanout.recall import Recalls, apart
from service.fanout.worker import Report, ShardOrder, pack, run_shard
from service.settings import Settings


class Launcher:
    """Has the weights in the object store and starts Ray tasks that use them."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Ray must be there."""
        self._engine = engine
        self._settings = settings
        self._recalls = Recalls()
        self._packed: dict[str, tuple[str, Any]] = {}
        self.avoided: frozenset[str] = frozenset()
        """Nodes that get no shard: this one, and those that compute otherwise."""
        self.avoid(ray.get_runtime_context().get_node_id())

    def avoid(self, node: str) -> None:
        """Start nothing on the node of that id from now on."""
        self.avoided |= {node}
        self._task: Any = ray.remote(run_shard).options(
            num_returns="streaming",
            num_cpus=self._settings.fanout_cpus,
            num_gpus=self._settings.fanout_gpus,
            max_retries=0,  # `Wave` tries again, and counts
            scheduling_strategy="SPREAD",
            label_selector={"ray.io/node-id": f"!in({','.join(sorted(self.avoided))})"},
        )

    def pack(self, model: str) -> None:
        """Put the weights of `model` into the object store, if they are not there."""
        if model not in self._packed:
            packed = pack(self._engine, model)
            self._packed[model] = packed.key, ray.put(packed)

    @contextmanager
    def shard(self, asked: SolveRequest, end: float) -> Iterator[Any]:
        """A generator of references to the reports of a shard, whose worker stops with the block.

        `end` is the deadline on `monotonic`'s clock. The model must have been packed.
        """
        key, packed = self._packed[asked.model]
        order = ShardOrder(
            asked,
            end=time.time() + end - time.monotonic(),
            key=key,
            arithmetic=self._engine.arithmetic(asked.model),
            device="cuda" if self._settings.fanout_gpus else "cpu",
            slots=self._settings.slots,
            threads=max(1, int(self._settings.fanout_cpus)),
        )
        with self._recalls.shard() as recalled:
            yield apart(self._task.remote, order, [packed, recalled])

    def run(self, asked: SolveRequest, end: float) -> Generator[Report]:
        """The reports of a shard, as they come; blocks. Raises what Ray raises."""
        with self.shard(asked, end) as reports:
            for report in reports:
                yield ray.get(report)

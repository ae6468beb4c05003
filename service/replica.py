"""The solver replica: one engine with all models, stepped by its own thread.

torch is imported in the replica's process alone, when the replica is built.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.errors import EqrError, ModelError
from eqr_core.tasks import task_at
from service.metrics import Collected, SolverMetrics
from service.orders import ANY_MODEL, Order, answer_of
from service.problems import Refusal, refusal_of
from service.schemas import ModelAnswer, SolveAnswer
from service.settings import Settings

if TYPE_CHECKING:
    from eqr_core.engine.engine import Engine
    from eqr_core.model.card import Card


class Solver:
    """Holds the engine. Its event loop only waits: outer steps run in the engine's thread."""

    def __init__(self, settings: Settings) -> None:
        import torch

        from eqr_core.engine.async_engine import AsyncEngine
        from eqr_core.engine.engine import Engine
        from eqr_core.model.checkpoint import zoo_names

        torch.set_num_threads(max(1, settings.cpus // settings.replicas))
        self._metrics = SolverMetrics()
        self._engine = Engine(
            settings.models or zoo_names(),
            slots=settings.slots,
            queue=settings.queue,
            observer=self._metrics.observe_tick,
        )
        warm_up(self._engine)
        self._runner = AsyncEngine(self._engine)
        self._runner.start()

    async def solve(self, order: Order) -> SolveAnswer | Refusal:
        """Run `order`. What the client did wrong comes back as a value.

        A refusal is no failure of the replica, and raised through Ray it would become one: with
        a traceback in the log and in its message. When the caller goes away this task is
        cancelled, and with it the request in the engine.
        """
        try:
            return await self._solve(order)
        except (EqrError, Refusal) as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            return refusal

    async def _solve(self, order: Order) -> SolveAnswer:
        request = replace(order.request, model=self._choose(order.request))
        try:
            answer = await self._runner.submit(request)
        except asyncio.CancelledError:
            self._metrics.observe_cancelled(request)
            raise
        self._metrics.observe(answer)
        return answer_of(order, answer)

    def _choose(self, request: SolveRequest) -> str:
        name = None if request.model == ANY_MODEL else request.model
        if name is not None and name not in self._engine.models:
            known = ", ".join(self._engine.models)
            raise Refusal("unknown_model", f"there is no model {name!r}; there is {known}")
        try:
            return self._engine.choose_model(request.task, name)
        except ModelError as error:
            raise Refusal("unsuitable_model", str(error)) from None

    async def models(self) -> list[ModelAnswer]:
        """What the cards of the loaded models say."""
        return [_model_answer(name, card) for name, card in self._engine.models.items()]

    async def ready(self) -> bool:
        """Whether solves run here. The warm-up solve was part of building the replica."""
        return self._runner.healthy

    async def collect(self) -> tuple[str, Collected]:
        """Name and metrics of the replica."""
        return replica_name(), self._metrics.collect(self._engine.stats)

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        if not self._runner.healthy:
            raise RuntimeError("the engine's stepping thread has died")


def warm_up(engine: Engine) -> None:
    """Solve a blank grid with every model, at its first size, so that no user's solve is first."""
    for name, card in engine.models.items():
        rows, columns = (int(part) for part in card.sizes[0].split("x"))
        task = task_at(card.task, rows, columns)
        blank = ((0,) * columns,) * rows
        engine.solve(
            [SolveRequest(task, blank, name, Budget(depth=2, breadth=1, stop="exhausted"))]
        )


def replica_name() -> str:
    """Deployment and unique id of the replica that this process holds."""
    from ray import serve

    replica = serve.get_replica_context().replica_id
    return f"{replica.deployment_id.name}#{replica.unique_id}"


def _model_answer(name: str, card: Card) -> ModelAnswer:
    return ModelAnswer(
        name=name,
        task=card.task,
        sizes=list(card.sizes),
        parameters=card.parameters,
        digest=card.digest,
        tolerance=card.tolerance,
        description=card.description,
        license=card.license,
        results=[dict(result) for result in card.results],
    )

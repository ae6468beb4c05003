"""The solver replica: one engine with all models, stepped by its own thread.

torch is imported in the replica's process alone, when the replica is built.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, NoReturn

from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.errors import DeadlineExceeded, EngineStopped, EqrError, ModelError
from eqr_core.model.sizes import named
from eqr_core.tasks import task_at
from service.load import Load
from service.metrics import Collected, SolverMetrics
from service.orders import ANY_MODEL, Order, answer_of, progress_of
from service.pace import Pace
from service.problems import Refusal, refusal_of
from service.schemas import ModelAnswer, ProgressAnswer, SolveAnswer
from service.settings import Settings

if TYPE_CHECKING:
    from eqr_core.engine.async_engine import AsyncEngine
    from eqr_core.engine.engine import Engine
    from eqr_core.engine.stats import Observer
    from eqr_core.model.card import Card
    from service.fanout.fan_out import FanOut

_log = logging.getLogger("ray.serve")


class Solver:
    """Holds the engine. Its event loop only waits: outer steps run in the engine's thread."""

    def __init__(self, settings: Settings) -> None:
        import torch

        from eqr_core.engine.async_engine import AsyncEngine

        torch.set_num_threads(settings.solver_threads)
        self._progress_per_second = settings.progress_per_second
        self._metrics = SolverMetrics()
        self._engine = warm_engine(
            settings.models,
            slots=settings.slots,
            queue=settings.queue,
            device="cuda" if settings.solver_gpus else "cpu",
            observer=lambda tick: self._metrics.observe_tick(tick),
        )
        self._metrics = SolverMetrics(since=self._engine.stats)  # the warm-up is nobody's
        self._load = Load(since=self._engine.stats, slots=settings.slots)
        self._runner = AsyncEngine(self._engine)
        self._runner.start()
        self._fanout = self._fan_out(settings)

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

    async def solve_all(
        self, orders: Sequence[Order]
    ) -> AsyncGenerator[list[SolveAnswer | Refusal], None]:
        """`solve` for several; their ends in order, when all have ended. None fails another."""

        async def end_of(order: Order) -> SolveAnswer | Refusal:
            try:
                return await self.solve(order)
            except Exception:
                _log.exception("a request of a batch failed")
                return Refusal("internal_error", "the service failed; the fault is in its log")

        yield list(await asyncio.gather(*map(end_of, orders)))

    async def _solve(self, order: Order) -> SolveAnswer:
        model = self._choose(order.request)
        try:
            request = order.request_now(model)
            with self._held(order, request):
                answer = await self._place(request).submit(request)
        except (asyncio.CancelledError, DeadlineExceeded) as error:
            self._observe_unanswered(order, model, error)
            raise
        except EngineStopped:
            end_process()
        self._observe(order, answer)
        return answer_of(order, answer)

    async def stream(
        self, order: Order
    ) -> AsyncGenerator[ProgressAnswer | SolveAnswer | Refusal, None]:
        """Run `order`, telling its progress; the answer or a refusal comes last."""
        try:
            async with aclosing(self._stream(order)) as events:
                async for event in events:
                    yield event
        except (EqrError, Refusal) as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            yield refusal

    async def _stream(self, order: Order) -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        model = self._choose(order.request)
        pace = Pace(self._progress_per_second)
        answer: Answer | None = None
        try:
            request = order.request_now(model)
            with self._held(order, request):
                async with aclosing(self._place(request).stream(request)) as events:
                    async for event in events:
                        if isinstance(event, Answer):
                            answer = event
                        elif pace.due():
                            yield progress_of(order, event)
        except (asyncio.CancelledError, GeneratorExit, DeadlineExceeded) as error:
            self._observe_unanswered(order, model, error)
            raise
        except EngineStopped:
            end_process()
        if answer is not None:
            self._observe(order, answer)
            yield answer_of(order, answer)

    def _held(self, order: Order, request: SolveRequest) -> AbstractContextManager[None]:
        """`request` is in hand in the block; a Refusal where it would wait for too long."""
        end, priority = order.end, request.priority
        self._load.check_room(self._engine.stats, end, order.left_seconds, priority)
        return self._load.taken(request.budget, end, priority)

    def _place(self, request: SolveRequest) -> AsyncEngine | FanOut:
        """Where `request` is solved: here, or here and on workers."""
        if self._fanout is not None and self._fanout.suits(request):
            return self._fanout
        return self._runner

    def _fan_out(self, settings: Settings) -> FanOut | None:
        import ray

        if not settings.fanout_workers or not ray.is_initialized():
            return None
        from service.fanout.fan_out import FanOut

        return FanOut(self._runner, settings, self._metrics.count_shard)

    def _observe(self, order: Order, answer: Answer) -> None:
        self._metrics.observe(answer)
        cut = answer.finish_reason == "deadline"
        self._load.learn(order.request.budget, answer.nfe, cut)

    def _observe_unanswered(self, order: Order, model: str, error: BaseException) -> None:
        late = isinstance(error, DeadlineExceeded)
        task = order.request.task.name
        self._metrics.observe_unanswered(task, model, "deadline" if late else "cancelled")

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

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve where the number of replicas follows their load."""
        return self._load.report(self._engine.stats)

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        if not self._runner.healthy:
            raise RuntimeError("the engine's stepping thread has died")


def warm_engine(
    models: Sequence[str],
    *,
    slots: int = 1,
    queue: int = 1,
    device: str = "cpu",
    observer: Observer | None = None,
) -> Engine:
    """An engine that has solved an example of every size that a model names: no user is first.

    `models` are names or folders; none: the whole zoo. ModelError, CheckpointError.
    """
    from eqr_core.engine.engine import Engine
    from eqr_core.model.checkpoint import zoo_names

    names = models or zoo_names()
    if not names:
        raise ModelError("models: none is named, and none comes with the package")
    engine = Engine(names, slots=slots, queue=queue, device=device, observer=observer)
    budget = Budget(depth=1, breadth=1, stop="exhausted")
    for name, card in engine.models.items():
        for size in named(card.sizes):
            rows, columns = (int(part) for part in size.split("x"))
            task = task_at(card.task, rows, columns)
            engine.solve([SolveRequest(task, task.example, name, budget)])
    return engine


def check_models(models: Sequence[str]) -> None:
    """Raise as `warm_engine` does where a solver could not serve `models`."""
    warm_engine(models)


def end_process() -> NoReturn:
    """End this replica as a crash would: Serve starts another, the gateway sends its orders there.

    Called while the error that ended the engine is handled.
    """
    _log.exception("the engine's stepping thread has died; so does its replica")
    logging.shutdown()
    os._exit(1)


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
        calibration=card.calibration,
        description=card.description,
        license=card.license,
        results=[dict(result) for result in card.results],
    )

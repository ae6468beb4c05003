"""The one `solve` behind every way in: deadline, one retry elsewhere, draining."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from service.breaker import Breaker, Urgency
from service.cache import Cache, suited
from service.limits import Ceilings, Limits
from service.metrics import Collected
from service.micro_batch import MicroBatcher, Outcome
from service.orders import Order
from service.problems import Refusal
from service.schemas import ModelAnswer, ProgressAnswer, SolveAnswer

DEADLINE_GRACE_SECONDS = 5.0
"""The engine keeps the deadline; this much later the gateway stops waiting for it."""

READY_SECONDS = 10.0
COLLECT_SECONDS = 5.0

Result = TypeVar("Result")
Send = Callable[[Order], Awaitable[Outcome]]


class Gateway:
    """Sends orders to the solver deployment. Stateless but for draining and what is in flight."""

    def __init__(
        self, solver: DeploymentHandle[Any], cache: Cache, limits: Limits, ceilings: Ceilings
    ) -> None:
        self._solver = solver
        self._streaming = solver.options(stream=True)
        self._cache, self._limits, self._ceilings = cache, limits, ceilings
        self._models: list[ModelAnswer] = []
        self._breaker = Breaker()
        self._draining = False
        self._in_flight = 0
        self._waits: set[asyncio.Timeout] = set()
        self._cut = False

    @property
    def in_flight(self) -> int:
        """Solves that have been taken and not answered."""
        return self._in_flight

    @property
    def draining(self) -> bool:
        """Whether no further work is taken."""
        return self._draining

    def drain(self) -> None:
        """Take no further work; what runs goes on."""
        self._draining = True

    def cut(self) -> None:
        """End what runs with a Refusal ``draining``."""
        self._cut = True
        for limit in self._waits:
            if not limit.expired():
                limit.reschedule(0)

    async def solve(self, order: Order) -> SolveAnswer:
        """Answer of `order`, kept or new; `timing_ms.total` counts from here.

        A solve is idempotent (its seeds are its own), so when the replica that holds it dies it
        is sent once more; the deadline stays.

        Raises a Refusal where the service is draining, full, without replicas or out of time,
        where the owner's quota is spent, or where the solver refuses the order; BudgetError above
        a ceiling.
        """
        return await self._solve(order, self._send)

    def together(self, size: int) -> Callable[[Order], Awaitable[SolveAnswer]]:
        """`solve` for the orders of one batch, which go to the solvers up to `size` in a call."""
        batcher = MicroBatcher(self._send_all, size)
        return lambda order: self._solve(order, batcher.submit)

    async def _solve(self, order: Order, send: Send) -> SolveAnswer:
        await self._admit(order)
        start = monotonic()
        with self._counted():
            model = suited(self._models, order) if order.cache else None
            if model is None:
                answer = await self._run(send, order)
            else:
                answer = await self._cache.solve(order, model, partial(self._run, send))
            await self._charge(order, answer)
        return _timed(answer, start)

    async def _send(self, order: Order) -> Outcome:
        (outcome,) = await self._send_all([order])
        return outcome

    async def _send_all(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """The ends of `orders`, which go to one solver.

        They come as a stream of one: over gRPC Serve's router learns that a solver has taken a
        call, and that it has died with it, from a stream alone. A plain call it would send from
        solver to solver, whatever becomes of them.
        """
        response: Any = self._streaming.solve_all.remote(orders)
        try:
            outcomes: Sequence[Outcome] = await anext(response)
        except DeploymentUnavailableError:
            raise Refusal("not_ready", "the solver could not be started") from None
        except BaseException:
            response.cancel()
            raise
        self._breaker.ended(list(zip(map(_urgency, orders), outcomes, strict=True)))
        return outcomes

    async def _run(self, send: Send, order: Order) -> SolveAnswer:
        self._breaker.check(_urgency(order))
        async with self._wait_for(order):
            outcome = await _once_more(lambda: send(order))
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    async def stream(self, order: Order) -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        """Progress of `order` now and then, and its answer at the end; raises as `solve` does.

        When the replica dies the solve begins anew elsewhere, and so does its progress.
        """
        await self._admit(order)
        start = monotonic()
        with self._counted():
            for tries_left in (1, 0):
                try:
                    async with aclosing(self._events(order)) as events:
                        async for event in events:
                            if isinstance(event, SolveAnswer):
                                await self._charge(order, event)
                                event = _timed(event, start)
                            yield event
                    return
                except _REPLICA_LOST:
                    if not tries_left:
                        raise Refusal("not_ready", _DIED_TWICE) from None

    async def _events(self, order: Order) -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        self._breaker.check(_urgency(order))
        response: Any = self._streaming.stream.remote(order)
        try:
            while True:
                async with self._wait_for(order):
                    event = await anext(response, None)
                if event is None:
                    return
                self._breaker.ended([(_urgency(order), event)])
                if isinstance(event, Refusal):
                    raise event
                yield event
        except DeploymentUnavailableError:
            raise Refusal("not_ready", "the solver could not be started") from None
        except BaseException:
            response.cancel()
            raise

    async def learn_models(self) -> None:
        """Ask for the models by which the cache finds an answer; until then it finds none."""
        self._models = await self.models()

    def check(self, order: Order) -> None:
        """Raise BudgetError where `order` is above what this service allows."""
        self._ceilings.check(order.request.budget)

    async def models(self) -> list[ModelAnswer]:
        """The models that the solvers hold."""
        found: list[ModelAnswer] = await self._call_soon(self._solver.models)
        return found

    async def model(self, name: str) -> ModelAnswer:
        """The model `name`; Refusal ``unknown_model`` where there is none."""
        models = await self.models()
        for model in models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in models)
        raise Refusal("unknown_model", f"there is no model {name[:200]!r}; there are {known}")

    async def check_ready(self) -> None:
        """Return when a solver that has solved its warm-up takes work; else raise a Refusal."""
        self._refuse_when_draining()
        if not await self._call_soon(self._solver.ready):
            raise Refusal("not_ready", "the solver's engine does not run")

    async def collect(self) -> list[tuple[str, Collected]]:
        """Metrics of every solver replica."""
        return await collect_from(self._solver)

    async def _admit(self, order: Order) -> None:
        self._refuse_when_draining()
        self.check(order)
        await self._limits.check_quota(order.owner)

    async def _charge(self, order: Order, answer: SolveAnswer) -> None:
        if not answer.cached:
            await self._limits.charge(order.owner, answer.nfe)

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise Refusal("draining", "the service is shutting down and takes no further work")

    @asynccontextmanager
    async def _wait_for(self, order: Order) -> AsyncIterator[None]:
        """The deadline of `order` and its grace are the end of the block, or `cut` is."""
        limit = asyncio.timeout(0 if self._cut else order.left_seconds + DEADLINE_GRACE_SECONDS)
        self._waits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            if self._cut:
                raise Refusal("draining", "the service stops before the solve ends") from None
            raise
        finally:
            self._waits.discard(limit)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _call_soon(self, method: Any) -> Any:
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await self._call(method)
        except TimeoutError:
            raise Refusal("not_ready", "no solver is running yet") from None
        except _REPLICA_LOST:
            raise Refusal("not_ready", "the solver has died and is being replaced") from None

    @staticmethod
    async def _call(method: Any) -> Any:
        response = method.remote()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except DeploymentUnavailableError:
            raise Refusal("not_ready", "the solver could not be started") from None


_REPLICA_LOST = (RayActorError, ReplicaUnavailableError)
_DIED_TWICE = "the solver died twice while it held the request"


def _urgency(order: Order) -> Urgency:
    return Urgency(order.request.priority, order.left_seconds)


def _timed(answer: SolveAnswer, start: float) -> SolveAnswer:
    """`answer` with the time from `start` (of `monotonic`) to now as its total."""
    timing = answer.timing_ms.model_copy(update={"total": (monotonic() - start) * 1e3})
    return answer.model_copy(update={"timing_ms": timing})


async def _once_more(attempt: Callable[[], Awaitable[Result]]) -> Result:
    try:
        return await attempt()
    except _REPLICA_LOST:
        pass
    try:
        return await attempt()
    except _REPLICA_LOST:
        raise Refusal("not_ready", _DIED_TWICE) from None


async def collect_from(handle: DeploymentHandle[Any]) -> list[tuple[str, Collected]]:
    """Metrics of every replica of a deployment; a dead one is left out, even if none remains.

    Refusal where one does not answer in time: numbers without it would look like a reset.
    """
    try:
        found = await handle.broadcast("collect").results_async(
            timeout_s=COLLECT_SECONDS, return_exceptions=True
        )
    except TimeoutError:
        raise Refusal("not_ready", "a replica does not report its metrics in time") from None
    except (DeploymentUnavailableError, *_REPLICA_LOST):
        return []
    return [part for part in found if not isinstance(part, BaseException)]

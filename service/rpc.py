"""gRPC: the methods of eqr.v1.Solver, and nothing else. What they do is the gateway's.

Serve's gRPC proxy calls the method of the ingress that has the name of the RPC.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from service.gateway import Gateway
from service.messages import answer_message, body_of, event_message, model_message
from service.metrics import IngressMetrics
from service.orders import Order, order_of
from service.problems import Refusal, refusal_of
from service.rpc_context import Call
from service.settings import Settings
from service.stubs import solver_pb2 as pb

Response = TypeVar("Response")

_log = logging.getLogger("ray.serve")


class SolverRpc:
    """Methods of eqr.v1.Solver for an ingress that holds a gateway, settings and metrics.

    An error becomes the call's status; see rpc_errors.py. A client that goes away cancels the
    method, and with it the solve.
    """

    _gateway: Gateway
    _settings: Settings
    _metrics: IngressMetrics

    async def Solve(  # noqa: N802
        self, request: pb.SolveRequest, grpc_context: Any
    ) -> pb.SolveResponse:
        async def work(call: Call) -> pb.SolveResponse:
            return answer_message(await self._gateway.solve(self._order(request, call)))

        return await self._answered(grpc_context, request, pb.SolveResponse, work)

    async def SolveStream(  # noqa: N802
        self, request: pb.SolveStreamRequest, grpc_context: Any
    ) -> AsyncGenerator[pb.SolveStreamResponse, None]:
        call = Call(grpc_context)
        try:
            self._check(call, request)
            events = self._gateway.stream(self._order(request.request, call))
            call.accept()
            async with aclosing(events):
                async for event in events:
                    yield event_message(event)
        except Exception as error:
            self._refuse(call, error)
            # Serve hands a stream's status on with a message; service/proxy.py drops this one.
            yield pb.SolveStreamResponse()

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, grpc_context: Any
    ) -> pb.ListModelsResponse:
        async def work(call: Call) -> pb.ListModelsResponse:
            models = await self._gateway.models()
            return pb.ListModelsResponse(models=[model_message(model) for model in models])

        return await self._answered(grpc_context, request, pb.ListModelsResponse, work)

    def _order(self, request: pb.SolveRequest, call: Call) -> Order:
        return order_of(call.with_deadline(body_of(request)), self._settings.deadline_ms)

    async def _answered(
        self,
        context: Any,
        request: Any,
        empty: Callable[[], Response],
        work: Callable[[Call], Awaitable[Response]],
    ) -> Response:
        """What `work` comes to; where it fails, the call's status says so and `empty` is unread."""
        call = Call(context)
        try:
            self._check(call, request)
            response = await work(call)
        except Exception as error:
            self._refuse(call, error)
            return empty()
        call.accept()
        return response

    def _check(self, call: Call, request: Any) -> None:
        if not call.has_valid_id:
            raise Refusal(
                "invalid_request_id", "x-request-id must be 1 to 128 visible ASCII characters"
            )
        size, limit = request.ByteSize(), self._settings.max_body_bytes
        if size > limit:
            raise Refusal(
                "body_too_large", f"the message has {size} bytes; the limit is {limit} bytes"
            )

    def _refuse(self, call: Call, error: Exception) -> None:
        refusal = refusal_of(error)
        if refusal is None:
            _log.error("request %s failed", call.request_id, exc_info=error)
            refusal = Refusal("internal_error", "the service failed; the fault is in its log")
        self._metrics.reject(refusal.code)
        call.refuse(refusal)

"""gRPC: the methods of eqr.v1.Solver, and nothing else. What they do is the desk's.

Serve's gRPC server calls the method of the ingress that has the name of the RPC.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message

from service.batch import REQUESTS, body_of, items_of
from service.desk import Desk
from service.idempotency import HEADER, MAX_BYTES, KeptAnswer, check_key, names_of
from service.messages import (
    answer_message,
    event_message,
    fields_of,
    item_message,
    job_message,
    model_message,
)
from service.metrics import IngressMetrics
from service.problems import Refusal, refusal_of
from service.rpc_context import Call
from service.settings import Settings
from service.stubs import solver_pb2 as pb

IDEMPOTENCY_KEY = HEADER.lower()

Response = TypeVar("Response", bound=Message)

_log = logging.getLogger("ray.serve")


class SolverRpc:
    """Methods of eqr.v1.Solver for an ingress that holds a desk, settings and metrics.

    An error becomes the call's status; see rpc_errors.py. A client that goes away cancels the
    method, and with it the solve.
    """

    _desk: Desk
    _settings: Settings
    _metrics: IngressMetrics

    async def Solve(  # noqa: N802
        self, request: pb.SolveRequest, grpc_context: Any
    ) -> pb.SolveResponse:
        async def work(call: Call) -> pb.SolveResponse:
            body = body_of(call.with_deadline(fields_of(request)))
            order = await self._desk.order(body, call.owner)
            return answer_message(await self._desk.gateway.solve(order))

        return await self._once(grpc_context, request, pb.SolveResponse, work)

    async def SolveStream(  # noqa: N802
        self, request: pb.SolveStreamRequest, grpc_context: Any
    ) -> AsyncGenerator[pb.SolveStreamResponse, None]:
        call = Call(grpc_context, "SolveStream")
        try:
            self._admit(call, request)
            body = body_of(call.with_deadline(fields_of(request.request)))
            events = self._desk.gateway.stream(await self._desk.order(body, call.owner))
            call.echo()
            async with aclosing(events):
                async for event in events:
                    yield event_message(event)
            call.accept()
        except Exception as error:
            self._refuse(call, error)
            # Serve hands a stream's status on with a message; service/proxy.py drops an empty one.
            yield pb.SolveStreamResponse()
        finally:
            call.log()

    async def SolveBatch(  # noqa: N802
        self, request: pb.SolveBatchRequest, grpc_context: Any
    ) -> pb.SolveBatchResponse:
        async def work(call: Call) -> pb.SolveBatchResponse:
            given = [call.with_deadline(fields_of(one)) for one in request.requests]
            items, _ = items_of({REQUESTS: given}, self._settings.max_batch)
            ends = await self._desk.solve_batch(items, call.owner, call.request_id)
            return pb.SolveBatchResponse(results=[item_message(end) for end in ends])

        return await self._once(grpc_context, request, pb.SolveBatchResponse, work)

    async def SubmitJob(  # noqa: N802
        self, request: pb.SubmitJobRequest, grpc_context: Any
    ) -> pb.SubmitJobResponse:
        async def work(call: Call) -> pb.SubmitJobResponse:
            given = [fields_of(one) for one in request.requests]
            items, pointer = items_of({REQUESTS: given}, self._settings.max_batch)
            job = await self._desk.submit(
                items, pointer, call.owner, call.request_id, call.repetition
            )
            return pb.SubmitJobResponse(job=job_message(job))

        return await self._once(grpc_context, request, pb.SubmitJobResponse, work)

    async def GetJob(  # noqa: N802
        self, request: pb.GetJobRequest, grpc_context: Any
    ) -> pb.GetJobResponse:
        async def work(call: Call) -> pb.GetJobResponse:
            return pb.GetJobResponse(job=job_message(await self._desk.job(request.id, call.owner)))

        return await self._answered(grpc_context, request, pb.GetJobResponse, work)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, grpc_context: Any
    ) -> pb.CancelJobResponse:
        async def work(call: Call) -> pb.CancelJobResponse:
            job = await self._desk.cancel_job(request.id, call.owner)
            return pb.CancelJobResponse(job=job_message(job))

        return await self._answered(grpc_context, request, pb.CancelJobResponse, work)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, grpc_context: Any
    ) -> pb.ListModelsResponse:
        async def work(call: Call) -> pb.ListModelsResponse:
            models = await self._desk.gateway.models()
            return pb.ListModelsResponse(models=[model_message(model) for model in models])

        return await self._answered(grpc_context, request, pb.ListModelsResponse, work)

    async def _once(
        self,
        context: Any,
        request: Any,
        kind: type[Response],
        work: Callable[[Call], Awaitable[Response]],
    ) -> Response:
        """As `_answered`; a call that repeats another one's idempotency key gets its answer."""

        async def first_or_kept(call: Call) -> Response:
            key = getattr(request, "idempotency_key", "") or call.metadata.get(IDEMPOTENCY_KEY)
            if key is None:
                return await work(call)
            check_key(key)
            content = request.SerializeToString(deterministic=True)
            name, fingerprint, call.repetition = names_of(
                call.owner, key, kind.DESCRIPTOR.full_name.encode(), content
            )
            async with self._desk.idempotency.claim(name, fingerprint) as claim:
                if isinstance(claim, KeptAnswer):
                    kept: Response = kind.FromString(claim.body)
                    return kept
                response = await work(call)
                data = response.SerializeToString()
                if len(data) <= MAX_BYTES:
                    await claim.finish(KeptAnswer(200, (), data))
                return response

        return await self._answered(context, request, kind, first_or_kept)

    async def _answered(
        self,
        context: Any,
        request: Any,
        kind: type[Response],
        work: Callable[[Call], Awaitable[Response]],
    ) -> Response:
        """What `work` comes to; where it fails, the call's status says so, over an empty answer."""
        call = Call(context, kind.DESCRIPTOR.name.removesuffix("Response"))
        try:
            self._admit(call, request)
            response = await work(call)
            call.accept()
            return response
        except Exception as error:
            self._refuse(call, error)
            empty: Response = kind()
            return empty
        finally:
            call.log()

    def _admit(self, call: Call, request: Any) -> None:
        if not call.has_valid_id:
            raise Refusal(
                "invalid_request_id", "x-request-id must be 1 to 128 visible ASCII characters"
            )
        call.owner = self._desk.owner_of(call.metadata)
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

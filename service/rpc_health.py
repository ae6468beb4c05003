"""The standard health service, grpc.health.v1.Health, as methods of the ingress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from grpc_health.v1 import health_pb2

from service.desk import Desk
from service.problems import Refusal
from service.rpc_context import Call
from service.stubs import solver_pb2

WATCH_SECONDS = 1.0

SERVICES = ("", solver_pb2.DESCRIPTOR.services_by_name["Solver"].full_name)
"""Names that Check knows; the empty one is the whole server."""


class HealthRpc:
    """Methods of grpc.health.v1.Health for an ingress that holds a desk.

    SERVING means what `/health/ready` means.
    """

    _desk: Desk

    async def Check(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        if request.service not in SERVICES:
            message = f"there is no service {request.service[:200]!r}"
            Call(grpc_context, "Check").refuse(Refusal("not_found", message))
            return health_pb2.HealthCheckResponse()
        return await self._health()

    async def List(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        health = await self._health()
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(SERVICES, health))

    async def Watch(  # noqa: N802
        self, request: Any, grpc_context: Any
    ) -> AsyncGenerator[Any, None]:
        known = request.service in SERVICES
        last = None
        while True:
            health = await self._health() if known else _UNKNOWN
            if health.status != last:
                last = health.status
                yield health
            if self._desk.gateway.draining:
                # Or the stream would hold up the replica's end.
                refusal = Refusal("draining", "the service is shutting down")
                Call(grpc_context, "Watch").refuse(refusal)
                yield health_pb2.HealthCheckResponse()  # as in rpc.py
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _health(self) -> Any:
        try:
            await self._desk.gateway.check_ready()
        except Refusal:
            return _NOT_SERVING
        return _SERVING


_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
_NOT_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
_UNKNOWN = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)

"""The Serve application: an ingress that speaks HTTP and gRPC, and the solvers behind it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from service.desk import Desk
from service.gateway import collect_from
from service.metrics import Collected, IngressMetrics
from service.replica import Solver, replica_name
from service.rest import build_api
from service.rpc import SolverRpc
from service.rpc_health import HealthRpc
from service.settings import Settings

APP_NAME = "eqr"
INGRESS_CPUS = 0.1
HEALTH_PERIOD_SECONDS = 2.0
HEALTH_TIMEOUT_SECONDS = 30.0
STOP_SECONDS = 10.0
"""For what a replica still holds when it is stopped; draining has waited for its solves before."""

MAX_ONGOING = 100_000
"""Requests a replica may hold: no limit in practice, the engine's queue is the one that refuses."""


class Ingress(SolverRpc, HealthRpc):
    """Speaks HTTP and gRPC. Serve builds the ASGI application in the replica, after `__init__`."""

    def __init__(self, settings: Settings, solver: DeploymentHandle[Any]) -> None:
        self._settings = settings
        self._metrics = IngressMetrics()
        self._desk = Desk(settings, solver, self._metrics)
        # Here, because it asks the controller and blocks: in a request it would hold up the others.
        self._ingresses = serve.get_deployment_handle("Ingress", APP_NAME)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._desk, self._settings, self._metrics, self._collect_all)

    async def drain(self) -> None:
        """Refuse new work, hand jobs back; called on every ingress before the service stops."""
        await self._desk.drain()

    async def in_flight(self) -> int:
        """Solves this replica has taken and not answered."""
        return self._desk.gateway.in_flight

    async def collect(self) -> tuple[str, Collected]:
        """Name and metrics of the replica."""
        return replica_name(), self._metrics.collect()

    async def _collect_all(self) -> list[tuple[str, Collected]]:
        solvers, ingresses, store = await asyncio.gather(
            self._desk.gateway.collect(), collect_from(self._ingresses), self._desk.collect()
        )
        return solvers + ingresses + store


def build(settings: Settings) -> serve.Application:
    """The application that `serve.run` starts; `eqr serve` names it APP_NAME."""
    solver = _deployment(Solver, settings, settings.replicas, solver_cpus(settings))
    ingress = _deployment(serve.ingress()(Ingress), settings, 1, INGRESS_CPUS)
    return ingress.bind(settings, solver.bind(settings))


def _deployment(kind: Any, settings: Settings, replicas: int, cpus: float) -> serve.Deployment:
    make = serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": cpus},
        health_check_period_s=HEALTH_PERIOD_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
        graceful_shutdown_timeout_s=STOP_SECONDS,
    )
    return make(kind)


def solver_cpus(settings: Settings) -> float:
    """CPUs that Ray sets aside for one solver: half of all are left for everything else."""
    share = settings.cpus / settings.replicas / 2
    return float(int(share)) if share >= 1 else round(share, 3)

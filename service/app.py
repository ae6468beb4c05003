"""The Serve application: an ingress that speaks HTTP and gRPC, and the solvers behind it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from service.desk import Desk
from service.gateway import collect_from
from service.metrics import Collected, IngressMetrics
from service.replica import Solver, replica_name
from service.rest import build_api
from service.rpc import SolverRpc
from service.rpc_health import HealthRpc
from service.scaling import BacklogPolicy
from service.settings import Settings, read_settings

APP_NAME = "eqr"
INGRESS_CPUS = 0.1
HEALTH_PERIOD_SECONDS = 2.0
HEALTH_TIMEOUT_SECONDS = 30.0
STOP_SECONDS = 10.0
"""For what a replica still holds when it is stopped; draining has waited for its solves before."""

UPSCALE_SECONDS = 2.0
LOOK_BACK_SECONDS = 11.0
"""Load is averaged over so long; Serve wants more than its ten seconds between two reports."""

MAX_ONGOING = 100_000
"""Requests a replica may hold: no limit in practice, the engine's queue is the one that refuses."""


class Ingress(SolverRpc, HealthRpc):
    """Speaks HTTP and gRPC. Serve builds the ASGI application in the replica, after `__init__`."""

    def __init__(self, settings: Settings, solver: DeploymentHandle[Any]) -> None:
        self._settings = settings
        self._metrics = IngressMetrics()
        # Over gRPC, for half the processor time of calls between actors.
        solver = solver.options(_by_reference=False)
        self._desk = Desk(settings, solver, self._metrics)
        # Here, because it asks the controller and blocks: in a request it would hold up the others.
        here = serve.get_replica_context()
        self._ingresses = serve.get_deployment_handle(here.deployment, here.app_name)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._desk, self._settings, self._metrics, self._collect_all)

    async def drain(self) -> None:
        """Refuse new work, hand jobs back; called on every ingress before the service stops."""
        await self._desk.drain()

    async def cut(self) -> None:
        """End the solves that still run with a status."""
        self._desk.gateway.cut()

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


def build(settings: Settings, stop_seconds: float = STOP_SECONDS) -> serve.Application:
    """The application that `serve.run` starts; a stopped replica may take `stop_seconds`."""
    solver = _deployment(
        Solver,
        stop_seconds,
        ray_actor_options={"num_cpus": solver_cpus(settings), "num_gpus": settings.solver_gpus},
        **_number_of_solvers(settings),
    )
    ingress = _deployment(
        serve.ingress()(Ingress),
        stop_seconds,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        num_replicas=number_of_ingresses(settings),
    )
    return ingress.bind(settings, solver.bind(settings))


def application(args: dict[str, Any]) -> serve.Application:
    """What a Serve config's `import_path` names: settings from its `args`, then from variables.

    Nobody drains a cluster's replicas by hand: one that Serve stops ends what it holds first.
    """
    settings = read_settings(**args)
    return build(settings, stop_seconds=settings.drain_seconds)


def _deployment(kind: Any, stop_seconds: float, **options: Any) -> serve.Deployment:
    make = serve.deployment(
        max_ongoing_requests=MAX_ONGOING,
        health_check_period_s=HEALTH_PERIOD_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
        graceful_shutdown_timeout_s=stop_seconds,
        **options,
    )
    return make(kind)


def _number_of_solvers(settings: Settings) -> dict[str, Any]:
    if settings.most_replicas == settings.replicas:
        return {"num_replicas": settings.replicas}
    policy = AutoscalingPolicy.model_validate(
        {"policy_function": BacklogPolicy, "policy_kwargs": {"seconds": settings.backlog_seconds}}
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=settings.replicas,
            max_replicas=settings.most_replicas,
            upscale_delay_s=UPSCALE_SECONDS,
            downscale_delay_s=settings.idle_seconds,
            look_back_period_s=LOOK_BACK_SECONDS,
            policy=policy,
        )
    }


def solver_cpus(settings: Settings) -> float:
    """CPUs that Ray sets aside for one solver: half of all are left for everything else."""
    if settings.solver_cpus is not None:
        return settings.solver_cpus
    share = settings.cpus / settings.most_replicas / 2
    return float(int(share)) if share >= 1 else round(share, 3)


def number_of_ingresses(settings: Settings) -> int:
    """Two where there is room: the death of one then leaves another that answers at once."""
    return settings.ingresses or (2 if settings.cpus >= 4 else 1)

"""What can be set about the service: flags of `eqr serve`, or variables ``EQR_<NAME>``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from eqr_core.engine.budget import MAX_BREADTH, MAX_DEPTH, MAX_NFE, Budget
from eqr_core.errors import EqrError

PREFIX = "EQR_"

LogLevel = Literal["debug", "info", "warning", "error"]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s,]+)$")]


class SettingsError(EqrError):
    """Settings that cannot be used; the message is one line that names each of them."""

    exit_code = 2


def usable_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may run on, and no more than its container's quota pays for."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        return max(1, min(cpus, int(limit) // int(period)))
    except (OSError, ValueError):  # no such file here, or "max"
        return cpus


def _seconds(default: float, description: str) -> Any:
    return Field(
        default=default,
        ge=1,
        le=31_536_000,
        allow_inf_nan=False,
        description=f"{description[:-1]}, in seconds.",
    )


class Settings(BaseSettings):
    """Every field is a flag (``--max-body-bytes``) and a variable (``EQR_MAX_BODY_BYTES``).

    Flags win over variables, variables over defaults. Unknown fields and unknown ``EQR_``
    variables are refused, so that a misspelt one is noticed.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.")
    grpc_port: int = Field(default=9000, ge=0, le=65535, description="Port of gRPC; 0: no gRPC.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names or folders of checkpoints, comma-separated; empty: the whole zoo.",
    )
    slots: int = Field(
        default=64, ge=1, le=4096, description="Trajectories a solver runs at a time."
    )
    queue: int = Field(
        default=1024, ge=1, le=65536, description="Requests that may wait in a solver."
    )
    replicas: int = Field(default=1, ge=1, le=64, description="Solver replicas, at least.")
    max_replicas: int | None = Field(
        default=None, ge=1, le=1024, description="Solver replicas under load; none: no more."
    )
    backlog_seconds: float = _seconds(10, "More replicas where the work in hand takes longer.")
    idle_seconds: float = _seconds(300, "Fewer replicas when they have been too many so long.")
    solver_cpus: float | None = Field(
        default=None,
        gt=0,
        le=1024,
        allow_inf_nan=False,
        description="CPUs of a solver; none: half of --cpus, shared by all.",
    )
    solver_gpus: float = Field(
        default=0.0, ge=0, le=1024, allow_inf_nan=False,
        description="GPUs of a solver; 0: it computes on its CPUs.",
    )  # fmt: skip
    ingresses: int | None = Field(
        default=None, ge=1, le=64, description="Ingress replicas; none: 2 from 4 CPUs on, else 1."
    )
    cpus: int = Field(
        default_factory=usable_cpus, ge=1, le=1024, description="CPUs the local Ray may use."
    )
    fanout_workers: int = Field(
        default=64, ge=0, le=1024,
        description="Most shards of a request at a time on other nodes; 0: no fan-out.",
    )  # fmt: skip
    fanout_cpus: float = Field(
        default=1.0, gt=0, le=1024, allow_inf_nan=False, description="CPUs of a shard."
    )
    fanout_gpus: float = Field(
        default=0.0, ge=0, le=1024, allow_inf_nan=False, description="GPUs of a shard."
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1024, le=1 << 26, description="Largest request body, in bytes."
    )
    max_batch: int = Field(
        default=256, ge=1, le=65536, description="Most requests of one batch or job."
    )
    max_depth: int = Field(
        default=MAX_DEPTH, ge=Budget.depth, le=MAX_DEPTH, description="Largest depth of a budget."
    )
    max_breadth: int = Field(
        default=MAX_BREADTH,
        ge=Budget.breadth,
        le=MAX_BREADTH,
        description="Largest breadth of a budget.",
    )
    max_nfe: int = Field(
        default=MAX_NFE,
        ge=Budget.depth * Budget.breadth,
        le=MAX_NFE,
        description="Most outer steps that a budget may come to.",
    )
    deadline_ms: float = Field(
        default=60_000.0,
        gt=0,
        le=3_600_000,
        allow_inf_nan=False,
        description="Deadline of a request that names none, in milliseconds.",
    )
    progress_per_second: float = Field(
        default=10.0,
        gt=0,
        le=20,
        allow_inf_nan=False,
        description="Most progress events of a stream in a second.",
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long running solves may go on after a stop signal, in seconds.",
    )
    store_url: SecretStr | None = Field(
        default=None,
        description="redis:// or unix:// URL of the store; without it eqr serve starts its own.",
    )
    store_dir: Path | None = Field(
        default=None, description="Folder of the store that eqr serve starts."
    )
    cache_seconds: float = _seconds(3600, "How long answers are kept.")
    idempotency_seconds: float = _seconds(86_400, "How long an Idempotency-Key counts.")
    job_seconds: float = _seconds(86_400, "How long a job may wait and run.")
    job_result_seconds: float = _seconds(86_400, "How long a job's results are kept.")
    job_items: int = Field(
        default=32, ge=1, le=4096, description="Items of jobs that run at a time in an ingress."
    )
    max_jobs: int = Field(
        default=1000, ge=1, le=1_000_000, description="Jobs that may wait or run."
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of API keys, made by eqr keys; without it all may in."
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode] = Field(
        default=(), description="Origins whose pages may call, comma-separated; *: all."
    )
    log_level: LogLevel = Field(default="info", description="debug, info, warning or error.")

    @field_validator("models", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("api_keys_file", "store_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # Replicas have other working folders.
        return None if value is None else value.absolute()

    @property
    def most_replicas(self) -> int:
        """Solver replicas that there may be at a time."""
        return self.replicas if self.max_replicas is None else self.max_replicas

    @property
    def solver_threads(self) -> int:
        """Threads of one solver's torch."""
        cpus = self.cpus / self.most_replicas if self.solver_cpus is None else self.solver_cpus
        return max(1, int(cpus))

    @model_validator(mode="after")
    def _check_replicas(self) -> Settings:
        if self.most_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}; replicas is {self.replicas}")
        return self

    @model_validator(mode="after")
    def _refuse_unknown_variables(self) -> Settings:
        known = {PREFIX + name.upper() for name in type(self).model_fields}
        unknown = sorted(
            name for name in os.environ if name.upper().startswith(PREFIX) and name not in known
        )
        if unknown:
            raise ValueError(
                f"unknown variables {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
        return self


def read_settings(**given: Any) -> Settings:
    """Settings from the flags that are not None, the environment and the defaults.

    SettingsError names each field or variable that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(lines)) from None

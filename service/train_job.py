"""`eqr train --ray`: a recipe trained by several workers of a Ray cluster, with Ray Train.

The workers run the library's `Trainer` as a team (`train_worker.py`). The whole folder of the run
is a Ray checkpoint, so that it goes on elsewhere when a worker dies, or when the job is started
again with the same storage.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eqr_core.errors import RecipeError
from eqr_core.model.checkpoint import find_checkpoint
from eqr_core.training.progress import Display
from eqr_core.training.recipe import Recipe
from eqr_core.training.state import INDEX
from eqr_core.training.team import Team
from service.train_desk import Desk
from service.train_place import TrainJobError, cluster, holds_run
from service.train_worker import SCORE, Order, train_worker

KEPT_CHECKPOINTS = 3
"""The best by validation accuracy that stay in the storage, and the latest."""
RESTARTS = 5
"""How often a job goes on after a worker died."""
WAITS = 10
"""How often a job waits a minute for nodes that it lost."""
SHOW_SECONDS = 0.5
FETCHED = "fetched"
"""File in the run's folder that says which state came from the storage."""


@dataclass(frozen=True)
class TrainJob:
    """A recipe, who trains it, and where it goes.

    `storage` is a folder or URI that all workers can reach; the run is kept in it under the
    recipe's name. None: `ray` in the folder `out`, which one machine alone can reach.
    """

    recipe: Recipe
    out: Path
    workers: int
    gpus: bool = False
    storage: str | None = None
    files: tuple[Path, ...] = ()
    start: str | None = None
    within: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class JobResult:
    """How far the run has come, as `Trainer` tells it."""

    done: int
    progress: float
    best: float
    interrupted: bool


def run_job(job: TrainJob) -> JobResult:
    """Train; the run's folder, `best/` in it, is in `out` at the end, also of an interrupted one.

    Ctrl-C or SIGTERM has the workers save and end; a second one ends the job at once, and the
    next run goes on from the last checkpoint in the storage. RecipeError and TrainJobError.
    """
    storage = job.storage or str(job.out / "ray")
    if "://" not in storage:
        storage = str(Path(storage).resolve())
    check(job, storage)
    with cluster(job.workers, job.gpus):
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=node).remote()
        fit = _Fit(_trainer(job, storage, desk))
        with Display(job.recipe.name) as display:
            failure = _follow(fit, desk, display)
        if failure is not None:
            raise failure
        if fit.error is not None:
            raise TrainJobError(_why(fit.error), 1) from None
        fetch(fit.result.checkpoint, job.out)
        return JobResult(**fit.result.return_value)


def check(job: TrainJob, storage: str) -> None:
    """Refuse what would only fail on the workers, or in vain."""
    if job.workers < 1:
        raise TrainJobError(f"workers is {job.workers}; it must be 1 or more")
    for mix in job.recipe.puzzles:
        try:
            Team(0, job.workers).rows(mix.batch)
        except RecipeError as error:
            raise RecipeError(f"puzzles of {mix.size}: {error}") from None
    known = holds_run(storage, job.recipe.name)
    if not (job.out / INDEX).is_file():
        return
    if not known:
        raise TrainJobError(
            f"{job.out} holds a run that {storage} knows nothing of; give its storage, or "
            "another folder"
        )
    if _digest(job.out / INDEX) != _fetched(job.out):
        raise TrainJobError(
            f"{job.out} holds a run that has gone on without Ray, which {storage} knows nothing "
            "of; leave out --ray, or give another folder"
        )


def _trainer(job: TrainJob, storage: str, desk: Any) -> ray.train.torch.TorchTrainer:
    start = job.start
    if start is not None and Path(start).is_dir():
        start = str(find_checkpoint(start).resolve())
    order = Order(
        recipe=job.recipe,
        files=tuple(path.resolve() for path in job.files),
        start=start,
        within=job.within,
        until=float("inf") if job.minutes is None else time.time() + job.minutes * 60,
        desk=desk,
    )
    kept = ray.train.CheckpointConfig(
        num_to_keep=KEPT_CHECKPOINTS, checkpoint_score_attribute=SCORE
    )
    # Gloo for what the workers agree on: it waits for no GPU.
    backend = "cpu:gloo,cuda:nccl" if job.gpus else "gloo"
    # Ray Train's types know neither what a worker returns nor FailureConfig's newer fields.
    worker: Any = train_worker
    failures: Any = ray.train.FailureConfig
    return ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={"order": order},
        torch_config=ray.train.torch.TorchConfig(backend=backend),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.gpus,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if job.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=job.recipe.name,
            storage_path=storage,
            checkpoint_config=kept,
            failure_config=failures(max_failures=RESTARTS, controller_failure_limit=WAITS),
        ),
    )


class _Fit(threading.Thread):
    """`TorchTrainer.fit` beside the main thread, where it would take Ctrl-C for itself."""

    def __init__(self, trainer: ray.train.torch.TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.trainer = trainer
        self.result: Any = None
        self.error: Exception | None = None
        # `join` would take the thread for ended when Ctrl-C interrupts it (Python before 3.13).
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self.result = self.trainer.fit()
        except Exception as error:  # handed to the main thread
            self.error = error
        finally:
            self.ended.set()


def _follow(fit: _Fit, desk: Any, display: Display) -> TrainJobError | None:
    """Show the news until the job has ended; the failure among them, if there was one."""
    failure: TrainJobError | None = None
    begun = stopping = False
    while True:
        try:
            ended = fit.ended.wait(SHOW_SECONDS)
            for kind, values in ray.get(desk.take.remote()):
                begun = True
                if kind == "failed":
                    failure = failure or TrainJobError(values["text"], values["code"])
                else:
                    getattr(display, kind)(**values)
            if ended:
                return failure
        except KeyboardInterrupt:
            if stopping or not begun:
                raise
            stopping = True
            desk.stop.remote()
            display.say("saving and stopping; once more stops at once")


def _why(error: Exception) -> str:
    """The failure of a job in one line."""
    workers: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, cause in workers.items():
        return f"the job failed after {RESTARTS} restarts; worker {rank}: {_one_line(cause)}"
    return f"the job failed: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def fetch(checkpoint: ray.train.Checkpoint, out: Path) -> None:
    """Put a checkpoint of the job, which is the folder of a run, in place of the one in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetched-", dir=out) as name:
        checkpoint.to_directory(name)
        fetched = Path(name) / INDEX
        # Its files are the new ones only when the index, the last of them, is there again.
        (out / INDEX).unlink(missing_ok=True)
        for old in out.glob("state-*.safetensors"):
            old.unlink()
        (out / FETCHED).write_text(_digest(fetched) + "\n")
        shutil.copytree(name, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INDEX))
        fetched.replace(out / INDEX)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetched(out: Path) -> str:
    """Digest of the index that the last job put into `out`."""
    try:
        return (out / FETCHED).read_text().strip()
    except OSError:
        return ""

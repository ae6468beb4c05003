"""What each worker of a Ray Train job runs: the library's own trainer, as one of a team."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray.train
import ray.train.torch

from eqr_core.cli.group import describe, exit_code
from eqr_core.errors import EqrError, TrainingError
from eqr_core.model.checkpoint import find_checkpoint
from eqr_core.training.loop import Saved, Trainer
from eqr_core.training.recipe import Recipe
from eqr_core.training.team import Team
from service.train_desk import Wire, heeding

SCORE = "exact"
"""The metric by which checkpoints are kept."""
NOT_VALIDATED = -1.0
REPORT_SHARE = 0.1
"""Most of a run's time that reports to Ray may take."""


@dataclass(frozen=True)
class Order:
    """What the workers are to train; every path must lead to the same file on each of them."""

    recipe: Recipe
    files: tuple[Path, ...]
    start: str | None
    within: float | None
    until: float
    """Time of day, in seconds since the epoch, at which it is enough for now."""
    desk: Any


def train_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    """Go on from the job's latest checkpoint; how the run stands at the end, None if it failed.

    What would fail again after a restart is told to the desk. Everything else is raised, for
    Ray to restart the workers.
    """
    order: Order = config["order"]
    team = Team.joined()
    wire = Wire(order.desk)
    # Ray has put this process into its session's folder, and clears that away.
    with TemporaryDirectory(prefix=f"worker{team.rank}-", dir=Path.cwd()) as name:
        folder = Path(name)
        trainer = _agreed_trainer(order, folder, team, wire)
        if trainer is None:
            return None
        if team.rank:
            return _trained(trainer, order, wire)
        with heeding(order.desk, trainer):
            return _trained(trainer, order, wire)


def _agreed_trainer(order: Order, folder: Path, team: Team, wire: Wire) -> Trainer | None:
    """The trainer, if every worker has one: one that waited for another would wait for ever."""
    trainer = None
    try:
        trainer = _trainer(order, folder, team, wire)
    except EqrError as error:
        wire.failed(f"worker {team.rank}: {describe(error)}", exit_code(error))
    able = team.sums([0.0 if trainer is None else 1.0]) == [float(team.size)]
    return trainer if able else None


def _trainer(order: Order, folder: Path, team: Team, wire: Wire) -> Trainer:
    latest = ray.train.get_checkpoint()
    if latest is not None:
        latest.to_directory(folder)
    trainer = Trainer(
        order.recipe,
        folder,
        order.files,
        start=find_checkpoint(order.start) if order.start else None,
        within=order.within,
        device=ray.train.torch.get_device(),
        team=team,
        report=wire.say if team.rank == 0 else lambda text: None,
        watcher=wire,
        after_save=Reports(folder, team),
    )
    at = f"going on from step {trainer.done}" if trainer.resume() else "starting"
    if team.rank == 0:
        wire.say(f"{at} with {team.size} worker{'s' if team.size > 1 else ''}")
    return trainer


def _trained(trainer: Trainer, order: Order, wire: Wire) -> dict[str, Any] | None:
    try:
        trainer.run(max(0.0, order.until - time.time()) / 60)
    except TrainingError as error:  # of the gradient, which all workers share
        if trainer.team.rank == 0:
            wire.failed(describe(error), exit_code(error))
        return None
    return {
        "done": trainer.done,
        "progress": trainer.progress,
        "best": trainer.best,
        "interrupted": trainer.interrupted,
    }


class Reports:
    """Hands the run's folder to Ray after a save, unless that would take too much of the time.

    The best validation so far is always handed over.
    """

    def __init__(self, folder: Path, team: Team) -> None:
        self.folder = folder
        self.team = team
        self.ended = time.monotonic()
        self.took = 0.0
        self.best = NOT_VALIDATED

    def __call__(self, saved: Saved) -> None:
        """Called by every worker after the same saves; each report waits for all of them."""
        began = time.monotonic()
        better = saved.exact is not None and saved.exact > self.best
        due = saved.last or better or REPORT_SHARE * (began - self.ended) >= self.took
        (agreed,) = self.team.sums([float(due and self.team.rank == 0)])
        if not agreed:
            return
        score = NOT_VALIDATED if saved.exact is None else saved.exact
        self.best = max(self.best, score)
        ray.train.report(
            {SCORE: score, "step": saved.step},
            checkpoint=ray.train.Checkpoint.from_directory(self.folder)
            if self.team.rank == 0
            else None,
        )
        self.ended = time.monotonic()
        self.took = self.ended - began

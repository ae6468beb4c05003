"""Data-parallel training in two real processes over gloo."""

from __future__ import annotations

import csv
import multiprocessing
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from eqr_core.errors import RecipeError
from eqr_core.training.loop import Saved, Trainer
from eqr_core.training.recipe import Recipe, SizeMix
from eqr_core.training.state import load_state
from eqr_core.training.team import Team
from tests.training.test_training import tiny

Scenario = Callable[[Team, Path], None]
WORKERS = 2
MEASURED = ("loss", "halted_exact", "halting_step", "residual", "gradient_norm")


def recipe(**changes: Any) -> Recipe:
    """AdamW computes in float32; Muon's steps are in bfloat16, where rounding soon shows."""
    values = {"optimizer": "adamw", "lr": 0.003, "steps": 100, "validate_every": 40}
    # So many are held out that a validation takes two rounds, one for each worker.
    sizes = (SizeMix("4x4", 0.7, 8, 300, (4, 6)), SizeMix("6x6", 0.3, 4, 12))
    return tiny(**{**values, "validation_rows": 60, "puzzles": sizes, **changes})


def in_pair(scenario: Scenario, folder: Path) -> None:
    """Run the scenario in two processes, each a worker of a team; both must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=work, args=(scenario, folder, rank, port)) for rank in range(WORKERS)
    ]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert [one.exitcode for one in workers] == [0] * WORKERS


def work(scenario: Scenario, folder: Path, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORKERS)
    try:
        scenario(Team.joined(), folder / f"worker{rank}")
    finally:
        dist.destroy_process_group()


def trained(folder: Path, team: Team = Team(), **changes: Any) -> Trainer:  # noqa: B008
    trainer = Trainer(recipe(**changes), folder, team=team, compiled=False)
    trainer.resume()
    trainer.run()
    return trainer


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "curve.csv").open() as file:
        return [{name: float(row[name]) for name in ("step", *MEASURED)} for row in
                csv.DictReader(file)]  # fmt: skip


def validations(folder: Path) -> list[float]:
    with (folder / "validation.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in row
                if name not in ("seconds", "size")]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_state(folder)
    assert found is not None
    return found[0]["weights"]


def run_whole(team: Team, folder: Path) -> None:
    trained(folder / "float32", team)
    trained(folder / "bfloat16", team, precision="bfloat16", steps=10)


def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one/float32", tmp_path / "worker0/float32"
    trained(one)
    in_pair(run_whole, tmp_path)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=1e-4, atol=1e-5)
    assert len(curve(one)) == 2
    for row, other in zip(curve(one), curve(two), strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-5)
    found = pytest.approx(validations(one), rel=1e-2, abs=1e-6, nan_ok=True)
    assert validations(two) == found
    assert load_state(tmp_path / "worker0/bfloat16") is not None
    # The second worker writes nothing.
    assert not (tmp_path / "worker1/float32").exists()


class Interrupted(Trainer):
    """A trainer whose second worker is interrupted at step `at`."""

    at = 0

    def _train_once(self) -> None:
        super()._train_once()
        if self.done == self.at and self.team.rank == 1:
            self.interrupt()


def stop_and_go_on(team: Team, folder: Path) -> None:
    """The second worker alone is interrupted, twice; the first one's clock ends a timed run."""
    saves: list[Saved] = []
    shared = folder.parent / "worker0"
    for step in (37, 83):
        trainer = Interrupted(recipe(), shared, team=team, compiled=False, after_save=saves.append)
        trainer.at = step
        trainer.resume()
        trainer.run()
        assert trainer.interrupted
        assert trainer.done == step
        assert saves[-1].step == step
        assert saves[-1].last
        dist.barrier()
    assert {one.step for one in saves if one.exact is not None} == {40, 80}
    steps = team.sums([float(trainer.done) if team.rank == 0 else -float(trainer.done)])
    assert steps == [0.0]
    timed = Trainer(recipe(), folder / "timed", within=0.02, team=team, compiled=False)
    if team.rank == 1:  # its clock would end later
        time.sleep(1)
    timed.run()
    assert timed.seconds >= 1.2
    assert team.sums([timed.seconds]) == [2 * timed.seconds]


def test_a_team_stops_together_and_one_worker_goes_on(tmp_path: Path) -> None:
    undisturbed = trained(tmp_path / "one")
    in_pair(stop_and_go_on, tmp_path)
    assert load_state(tmp_path / "worker0/timed") is not None
    last = trained(tmp_path / "worker0")
    assert last.done == undisturbed.done
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "worker0")[name], value, rtol=1e-4, atol=1e-5)
    # The line that the interruptions fell into is made of all of its steps.
    for row, other in zip(curve(tmp_path / "one"), curve(tmp_path / "worker0"), strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-5)


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    assert [Team(rank, 2).rows(8) for rank in (0, 1)] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(RecipeError, match="batch is 8; it must be a multiple of 3 workers"):
        Team(0, 3).rows(8)


def test_an_interrupted_line_of_the_curve_is_the_same_to_the_bit(tmp_path: Path) -> None:
    trained(tmp_path / "whole")
    trainer = Trainer(recipe(), tmp_path / "parts", compiled=False)
    trainer.run(minutes=0)
    trained(tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")

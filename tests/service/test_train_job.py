"""`eqr train --ray` on a real Ray of two CPUs: killed workers, interruptions, refusals."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from typer.testing import CliRunner

from eqr_core import Budget, Solver
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import load_recipe
from service.cli import app
from tests.training.test_team import curve, validations, weights

ROOT = Path(__file__).parents[2]
EQR = "from service.cli import main; main()"
TOKEN = secrets.token_hex(32)
STEPS = 300
RECIPE = f"""
name = "tiny"
steps = {STEPS}
warmup = 4
validate_every = 25
validation_rows = 60
optimizer = "adamw"  # in float32; Muon's steps in bfloat16 enlarge what rounding does
lr = 0.003

[operator]
task = "sudoku"
mixer = "units"
hidden = 8
expansion = 2.0
blocks = 1
cycles = 1
updates = 2
states = "single"
constraint_kinds = 3

[[puzzles]]
size = "4x4"
share = 1.0
batch = 8
generate = 300
clues = [4, 6]
"""
HOLD = """
import sys, ray
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20,
         _node_ip_address="127.0.0.1")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        # No compiler: it would take longer than the runs.
        "CXX": "none",
    }


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a Ray that lives as long as the module."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        yield holder.stdout.readline().strip()
        holder.stdin.close()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run by one worker without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Trainer(load_recipe(str(recipe)), folder, compiled=False).run()
    return folder


def start(address: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", EQR, "train", *arguments],
            env={**environment(), "RAY_ADDRESS": address},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def ended(process: subprocess.Popen[bytes], log: Path) -> tuple[int, str]:
    """Exit code and output; no output of this command is ever a traceback."""
    process.wait()
    text = log.read_text()
    assert "Traceback" not in text
    return process.returncode, text


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    while not holds():
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}:\n{log.read_text()}")
        time.sleep(0.05)


def train_workers() -> list[int]:
    """Process ids of the training workers of this module's Ray, which its token tells."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            ours = TOKEN.encode() in (folder / "environ").read_bytes()
            if ours and b"RayTrainWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return sorted(found)


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    rows, expected = curve(folder), curve(undisturbed)
    assert [row["step"] for row in rows] == list(range(50, STEPS + 1, 50))
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=5e-3, abs=1e-4)
    # Rounding grows tenfold in fifty steps: to 4e-4 of single weights at the end.
    for name, value in weights(undisturbed).items():
        assert torch.dist(weights(folder)[name], value) < 5e-3 * value.norm(), name
    # Residuals below 1e-6 are rounding alone.
    found = pytest.approx(validations(undisturbed), rel=0.05, abs=1e-6, nan_ok=True)
    assert validations(folder) == found


def test_a_killed_worker_changes_nothing(
    address: str, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    storage = (tmp_path / "storage").as_uri()
    options = ["--ray", "--workers", "2", "--out", str(out), "--storage", storage]
    process = start(address, log, str(recipe), *options)
    saved = tmp_path / "storage" / "tiny"
    # A checkpoint came before, after step 25 or 50.
    wait_until(lambda: "step 100, " in log.read_text(), process, log)
    os.kill(train_workers()[0], signal.SIGKILL)
    code, text = ended(process, log)
    assert code == 0, text
    assert "going on from step" in text
    assert f"{STEPS} steps" in text
    assert_same_run(out, undisturbed)
    solver = Solver.load(out / "best")
    answer = solver.solve("1... ..3. .4.. ...2", budget=Budget(depth=16, breadth=4))
    assert answer.iterations > 0
    # The best three and, if it is not one of them, the latest.
    assert 1 <= sum(path.is_dir() for path in saved.glob("checkpoint_*")) <= 4


def test_an_interrupted_job_is_saved_and_goes_on_without_ray(address: str, tmp_path: Path) -> None:
    """Of larger batches, so that the signal comes in time."""
    recipe, undisturbed = tmp_path / "slow.toml", tmp_path / "undisturbed"
    recipe.write_text(RECIPE.replace("batch = 8", "batch = 200"))
    Trainer(load_recipe(str(recipe)), undisturbed, compiled=False).run()
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(address, log, str(recipe), "--ray", "--workers", "2", "--out", str(out))
    wait_until(lambda: "step 50" in log.read_text(), process, log)
    process.send_signal(signal.SIGINT)
    code, text = ended(process, log)
    assert code == 130, text
    assert "saving and stopping" in text
    assert train_workers() == []
    trainer = Trainer(load_recipe(str(recipe)), out, compiled=False)
    assert trainer.resume()
    assert 50 <= trainer.done < STEPS
    trainer.run()
    losses, expected = ([row["loss"] for row in curve(one)] for one in (out, undisturbed))
    assert losses == pytest.approx(expected, rel=0.1)


def test_a_storage_with_another_run_is_refused(address: str, recipe: Path, tmp_path: Path) -> None:
    """The workers find out; what one of them cannot do ends the job without a restart."""
    options = ["--ray", "--storage", str(tmp_path / "storage")]
    log = tmp_path / "first"
    first = start(address, log, str(recipe), *options, "--out", str(tmp_path / "a"),
                  "--minutes", "0")  # fmt: skip
    code, text = ended(first, log)
    assert code == 0, text
    assert "1 steps" in text
    log = tmp_path / "second"
    second = start(address, log, str(recipe), *options, "--out", str(tmp_path / "b"),
                   "--seed", "5")  # fmt: skip
    code, text = ended(second, log)
    assert code == 2, text
    assert "the run was started with another recipe" in text
    assert not (tmp_path / "b" / "state.json").exists()
    assert refused(recipe, *options, "--out", str(tmp_path / "a"), "--workers", "0") == (
        "error: workers is 0; it must be 1 or more\n"
    )
    trainer = Trainer(load_recipe(str(recipe)), tmp_path / "a", compiled=False)
    assert trainer.resume()
    trainer.run(minutes=0)
    line = refused(recipe, *options, "--out", str(tmp_path / "a"))
    assert "a run that has gone on without Ray" in line


def test_gpus_that_are_not_there_are_refused(address: str, recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--ray", "--workers", "2", "--gpus", "--out", str(tmp_path / "out")]
    code, text = ended(start(address, log, str(recipe), *options), log)
    assert code == 2
    assert "error: 2 workers need a GPU each; the cluster has 0" in text


def test_more_workers_than_cpus_are_refused(address: str, recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--ray", "--workers", "4", "--out", str(tmp_path / "out")]
    code, text = ended(start(address, log, str(recipe), *options), log)
    assert code == 2
    assert "error: 4 workers need a CPU each; the cluster has 2" in text


def refused(recipe: Path, *options: str) -> str:
    """The one line of a job that is refused before Ray starts."""
    result = CliRunner().invoke(app, ["train", str(recipe), *options])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "--workers", "3"], "puzzles of 4x4: batch is 8; it must be a multiple of 3"),
        (["--ray", "--workers", "0"], "workers is 0; it must be 1 or more"),
        (["--ray", "--storage", "{file}/below"], "cannot be written"),
        (["--ray", "--storage", "nosuch://bucket/path"], "storage nosuch://bucket/path cannot"),
        (["--workers", "0"], "it needs --ray"),
        (["--gpus"], "it needs --ray"),
        (["--storage", "x"], "it needs --ray"),
        (["--ray", "--rehearse"], "leave out --ray"),
        (["--ray", "--device", "cuda"], "--gpus decides"),
        (["--ray", "--data", "{file}/none.csv"], "no such file"),
    ],
)
def test_bad_usage_is_one_line_before_ray_starts(
    recipe: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    given = [option.format(file=recipe) for option in options]
    assert message in refused(recipe, "--out", str(tmp_path / "o"), *given)
    assert not ray.is_initialized()


def test_a_folder_with_a_run_that_the_storage_does_not_know_is_refused(
    recipe: Path, tmp_path: Path
) -> None:
    Trainer(load_recipe(str(recipe)), tmp_path / "out", compiled=False).run(minutes=0)
    assert "holds a run that" in refused(recipe, "--out", f"{tmp_path}/out", "--ray")


def test_a_cluster_that_does_not_answer_is_one_line(recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start("127.0.0.1:1", log, str(recipe), "--ray", "--out", str(tmp_path / "out"))
    code, text = ended(process, log)
    assert code == 1, text
    assert "no Ray at RAY_ADDRESS, 127.0.0.1:1" in text

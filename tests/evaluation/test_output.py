from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eqr_core.cli import app
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import write_puzzles
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.landscape import REGIMES
from eqr_core.evaluation.plots import budgets, regimes, trajectories
from eqr_core.evaluation.rows import read_rows
from eqr_core.evaluation.sweep import Sweep
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
TABLES = {"cells", "strata", "regimes", "inputs", "residual", "reliability", "iterations"}
PLOTS = {"accuracy", "nfe", "residual", "reliability", "iterations", "landscape", "examples"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "p.csv"
    write_puzzles(path, list(generate_sudoku(Sudoku((2, 2)), 12, seed=2)))
    return path


@pytest.fixture(scope="module")
def out(data: Path) -> Path:
    """A sweep of the shipped model, which solves 4×4 grids and settles on them."""
    folder = data.parent / "out"
    result = run(data, "--depth", "2,32", "--breadth", "1,3", "--out", folder)
    assert result.exit_code == 0, result.output
    assert "exact, fixed budgets" in result.stdout
    assert "exact, adaptive budgets (mean NFE)" in result.stdout
    assert "regime of each input's landscape" in result.stdout
    return folder


def run(data: Path, *args: object, model: object = "sudoku") -> Result:
    command = ["eval", "--model", model, "--data", data, *args]
    return CliRunner().invoke(app, [str(arg) for arg in command])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_writes_report_tables_and_plots(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    assert {p.stem for p in out.glob("*.csv")} == TABLES
    assert {p.stem for p in out.glob("*.png")} == PLOTS
    assert all(path.read_bytes().startswith(PNG) for path in out.glob("*.png"))
    assert (report["depth"], report["breadth"], report["stop"]) == (32, 3, "exhausted")
    assert len(report["cells"]) == 8
    contract = {"model", "data", "rows", "depth", "breadth", "exact_accuracy", "cell_accuracy",
                "converged", "mean_iterations", "mean_nfe", "seconds", "source"}  # fmt: skip
    assert contract <= set(report)


def test_the_tables_say_what_the_report_says(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    cells = read(out / "cells.csv")
    assert [(c["stop"], int(c["depth"]), int(c["breadth"])) for c in cells] == [
        (c["stop"], c["depth"], c["breadth"]) for c in report["cells"]
    ]
    for row, cell in zip(cells, report["cells"], strict=True):
        assert float(row["exact_accuracy"]) == cell["exact_accuracy"]
        assert float(row["mean_nfe"]) == cell["mean_nfe"]
        assert [float(row["exact_low"]), float(row["exact_high"])] == cell["exact_interval"]
    strata = read(out / "strata.csv")
    assert sum(int(row["rows"]) for row in strata if row["by"] == "source") == 12 * 8
    inputs = read(out / "inputs.csv")
    assert [int(row["row"]) for row in inputs] == list(range(12))
    counted = {regime: sum(row["regime"] == regime for row in inputs) for regime in REGIMES}
    assert report["landscape"][0]["regimes"] == counted
    (everything,) = [row for row in read(out / "regimes.csv") if row["by"] == "all"]
    assert {regime: int(everything[regime]) for regime in REGIMES} == counted
    residual = read(out / "residual.csv")
    assert sum(int(row["trajectories"]) for row in residual) == 12 * 3
    assert set(residual[0]) >= {"low", "high", "accuracy", "interval_low", "interval_high"}
    assert len(read(out / "reliability.csv")) == len(report["reliability"])
    assert sum(int(row["puzzles"]) for row in read(out / "iterations.csv")) == 12


def test_plots_show_every_cell_and_class(data: Path) -> None:
    found = evaluate("sudoku", read_rows(data), Sweep((2, 32), (1, 3), ("exhausted", "converged")))
    heat = budgets.heat_map(found)
    assert heat is not None
    texts = [text.get_text() for panel in heat.axes for text in panel.texts]
    assert sum(text.endswith("%") and "–" not in text for text in texts) == 8
    assert sum("NFE" in text for text in texts) == 4
    cost = budgets.accuracy_by_nfe(found)
    assert cost is not None
    (legend,) = cost.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["depth 2", "depth 32", "fixed budgets", "adaptive budgets"]
    shown = trajectories.accuracy_by_residual(found)
    assert shown is not None
    heights = [bar.get_height() for bar in shown.axes[1].patches]  # type: ignore[attr-defined]
    assert sum(heights) == 12 * 3
    bars = regimes.bars(found)
    assert bars is not None
    assert [tick.get_text() for tick in bars.axes[0].get_yticklabels()] == [
        "all (12)",
        "rating 0 (12)",
        "generated_4x4 (12)",
    ]


def test_one_adaptive_budget_draws_what_it_has(data: Path, tmp_path: Path) -> None:
    result = run(data, "--depth", 32, "--breadth", 2, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {p.stem for p in (tmp_path / "out").glob("*.png")} == {"iterations", "examples"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["landscape"] is None
    assert report["stop"] == "converged"


def test_nothing_converges_and_nothing_is_right(data: Path, tmp_path: Path) -> None:
    """Random weights without a tolerance: no halting to draw, the landscape all the same."""
    save_random(tmp_path / "m")
    result = run(data, "--depth", "1,2", "--out", tmp_path / "out", model=tmp_path / "m")
    assert result.exit_code == 0, result.output
    plots = {p.stem for p in (tmp_path / "out").glob("*.png")}
    assert plots == {"accuracy", "nfe", "residual", "landscape", "examples"}


def test_the_same_command_goes_on_and_another_is_refused(data: Path, out: Path) -> None:
    before = (out / "report.json").read_bytes()
    again = run(data, "--depth", "2,32", "--breadth", "1,3", "--out", out)
    assert again.exit_code == 0
    assert (out / "report.json").read_bytes() == before
    other = run(data, "--depth", "2,16", "--breadth", "1,3", "--out", out)
    assert other.exit_code == 2
    assert "another evaluation, whose depths is [2, 32], not [2, 16]" in other.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--depth", "4,", "--breadth", "1"), "depth is '4,'"),
        (("--breadth", "8,8"), "8 stands more than once"),
        (("--stop", "converged,sometimes"), "stop: 'sometimes'"),
        (("--out", "none/deeper/out"), "there is no folder"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_impossible_commands_are_refused(data: Path, args: tuple[Any, ...], message: str) -> None:
    result = run(data, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("source,question,rating\nx,1...............,0\n")
    assert "it must be ['source', 'question', 'answer', 'rating']" in run(path).stderr
    path.write_text("source,question,answer,rating\nx,1...............,,0\n")
    assert "puzzle 1: it has no answer" in run(path).stderr


def test_without_matplotlib_everything_but_the_plots_is_there(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from eqr_core.cli import main; "
        f"sys.argv = ['eqr', 'eval', '--model', 'sudoku', '--data', {str(data)!r}, '--depth', "
        f"'2,3', '--out', {str(tmp_path / 'out')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the plots need matplotlib (pip install '.[train]' in the folder" in done.stderr
    assert (tmp_path / "out" / "report.json").exists()
    assert not list((tmp_path / "out").glob("*.png"))

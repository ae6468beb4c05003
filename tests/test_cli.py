from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eqr_core.cli import app
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import PuzzleRow, read_puzzles, write_puzzles
from eqr_core.model.checkpoint import load_checkpoint
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random

ROOT = Path(__file__).parents[1]
GRID = "1... .... .... ...2"
FULL = "1234341221434321"


def run(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


def refused(*args: object, stdin: str | None = None, code: int = 2) -> str:
    """The one line on standard error of a command that must fail."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_random(tmp_path / "m", tolerance=0.05)
    return tmp_path / "m"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = list(generate_sudoku(Sudoku((2, 2)), 6, seed=1))
    full = [PuzzleRow("full", row.answer, row.answer, 12) for row in rows[:2]]
    write_puzzles(tmp_path / "p.csv.gz", [*rows, *full])
    return tmp_path / "p.csv.gz"


def test_solve_draws_the_grid_with_its_figures(model: Path) -> None:
    result = run("solve", FULL, "--model", model)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.rstrip() for line in lines[:5]] == [
        " 1 2 | 3 4",
        " 3 4 | 1 2",
        "-----+-----",
        " 2 1 | 4 3",
        " 4 3 | 2 1",
    ]
    assert "converged, verified" in result.stdout
    assert "NFE 0" in result.stdout


def test_solve_prints_the_answer_as_json(model: Path) -> None:
    result = run("solve", GRID, "--model", model, "--depth", 4, "--breadth", 2, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["task"], answer["model"]) == ("sudoku", "random")
    assert len(answer["grid"]) == 4
    assert answer["text"] == "".join(str(digit) for row in answer["grid"] for digit in row)
    assert answer["breadth"]["started"] == 2
    assert answer["nfe"] == 8
    assert answer["cached"] is False
    again = json.loads(run("solve", GRID, "--model", model, "--depth", 4, "--json").stdout)
    assert again["grid"] == answer["grid"]


def test_solve_reads_the_grid_from_standard_input(model: Path) -> None:
    rows = "\n".join(FULL[i : i + 4] for i in range(0, 16, 4))
    result = run("solve", "-", "--model", model, "--json", stdin=rows)
    assert json.loads(result.stdout)["text"] == FULL


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["1..."], "4 cells"),
        (["11.. .... .... ...."], "row 1"),
        (["9... .... .... ...."], "row 1, column 1"),
        (["x"], "1 cells"),
        ([FULL[:-1] + "2"], "row 4"),
        ([GRID, "--task", "chess"], "unknown task 'chess'"),
        ([GRID, "--depth", "0"], "depth: 0"),
        ([GRID, "--depth", "-3"], "depth: -3"),
        ([GRID, "--depth", "99999999999"], "depth: 99999999999"),
        ([GRID, "--depth", "many"], "--depth"),
        ([GRID, "--breadth", "0"], "breadth: 0"),
        ([GRID, "--nfe", "0"], "nfe: 0"),
        ([GRID, "--deadline-ms", "nan"], "deadline_ms: nan"),
        ([GRID, "--deadline-ms", "-1"], "deadline_ms: -1"),
        ([GRID, "--tolerance", "inf"], "tolerance: inf"),
        ([GRID, "--stop", "never"], "stop: "),
        ([GRID, "--seed", "-1"], "seed: -1"),
        ([GRID, "--noise", "nan"], "noise: nan"),
        ([GRID, "--selection", "best"], "selection: "),
        ([GRID, "--colour"], "--colour"),
        ([], "Missing argument"),
    ],
)
def test_solve_refuses_in_one_line(model: Path, args: list[str], message: str) -> None:
    assert message in refused("solve", "--model", model, *args)


def test_solve_refuses_an_empty_standard_input(model: Path) -> None:
    assert "standard input is empty" in refused("solve", "-", "--model", model, stdin=" \n")


def test_models_that_cannot_be_used_are_refused(model: Path) -> None:
    assert "unknown model" in refused("solve", GRID, "--model", "nobody")
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "digest" in refused("solve", GRID, "--model", model)
    weights.unlink()
    assert "missing" in refused("solve", GRID, "--model", model)


def test_a_deadline_before_any_step_is_failed_work(model: Path) -> None:
    line = refused("solve", GRID, "--model", model, "--deadline-ms", "1e-9", code=1)
    assert "deadline" in line


def test_eval_reports_what_it_counted(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    common = ("eval", "--model", model, "--data", data, "--depth", 3, "--breadth", 2)
    assert run(*common, "--json", out).exit_code == 0
    report = json.loads(out.read_text())
    assert {key: report[key] for key in ("model", "data", "rows", "depth", "breadth")} == {
        "model": "random",
        "data": str(data),
        "rows": 8,
        "depth": 3,
        "breadth": 2,
    }
    assert report["exact_accuracy"] == 2 / 8
    assert {name: share["rows"] for name, share in report["source"].items()} == {
        "full": 2,
        "generated_4x4": 6,
    }
    assert {"cell_accuracy", "converged", "mean_iterations", "mean_nfe", "seconds"} <= set(report)
    printed = run(*common, "--json", "-", "--limit", 5)
    assert json.loads(printed.stdout)["rows"] == 5
    table = run(*common)
    assert "2 of 8 exact (25.0%" in table.stdout
    assert "rating 11-30" in table.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "first line"),
        ("source,question,answer,rating\n", "no puzzles"),
        ("source,question,answer,rating\nx,1234,1234,0\n", "puzzle 1"),
        (f"source,question,answer,rating\nx,{FULL},{FULL},hard\n", "line 2"),
        (f"source,question,answer,rating\nx,{FULL}\n", "line 2"),
    ],
)
def test_eval_refuses_bad_files(
    model: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "bad.csv"
    if text is not None:
        path.write_text(text)
    assert message in refused("eval", "--model", model, "--data", path)


def test_eval_refuses_before_it_works(model: Path, data: Path, tmp_path: Path) -> None:
    common = ("eval", "--model", model, "--data", data)
    assert "no such folder" in refused(*common, "--json", tmp_path / "none" / "r.json")
    assert "limit is 0" in refused(*common, "--limit", 0)
    assert "breadth: 2000" in refused(*common, "--breadth", 2000)
    assert "--slots" in refused(*common, "--slots", 0)
    assert "--data" in refused("eval", "--model", model)


def test_generate_writes_a_puzzle_file(tmp_path: Path) -> None:
    out = tmp_path / "p.csv.gz"
    result = run("generate", "sudoku", "--size", 4, "--count", 5, "--clues", "5-6", "--out", out)
    assert result.exit_code == 0, result.output
    rows = list(read_puzzles(out))
    assert len(rows) == 5
    assert {16 - row.question.count(".") for row in rows} <= {5, 6}
    hard = tmp_path / "hard.csv"
    assert run("generate", "sudoku", "--count", 2, "--min-rating", 2, "--out", hard).exit_code == 0
    assert all(row.rating >= 2 for row in read_puzzles(hard))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--size", "5"], "5x5"),
        (["--clues", "few"], "clues is 'few'"),
        (["--size", "4", "--clues", "2"], "clues is 2"),
        (["--count", "0"], "--count"),
        (["--size", "4", "--min-rating", "99"], "min_rating=99"),
    ],
)
def test_generate_refuses_in_one_line(tmp_path: Path, args: list[str], message: str) -> None:
    assert message in refused("generate", "sudoku", "--out", tmp_path / "p.csv", *args)
    assert "no folder" in refused("generate", "sudoku", "--out", tmp_path / "none" / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_models_list_and_show(model: Path) -> None:
    assert isinstance(json.loads(run("models", "list", "--json").stdout), list)
    assert run("models", "list").exit_code == 0
    card = json.loads(run("models", "show", model, "--json").stdout)
    assert (card["name"], card["tolerance"]) == ("random", 0.05)
    shown = run("models", "show", model).stdout
    assert card["digest"] in shown
    assert "operator.mixer" in shown
    assert "results" not in shown
    assert "operator.frame" not in shown
    assert "unknown model" in refused("models", "show", "nobody")


def test_options_of_fixed_values_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = " ".join(run("solve", "--help").stdout.split())
    for choices in ("converged|verified|exhausted", "residual|q|unchanged", "residual|majority"):
        assert choices in shown


def test_models_show_has_a_line_for_each_result() -> None:
    (first, *_) = json.loads(run("models", "show", "sudoku", "--json").stdout)["results"]
    shown = run("models", "show", "sudoku").stdout
    assert '"exact_accuracy"' not in shown
    assert len(shown.splitlines()) < 40
    assert "calibration.precision.share" in shown
    (line,) = (
        line.split()
        for line in shown.splitlines()
        if line.split()[:2] == [first["data"], str(first["rows"])]
    )
    assert line[2:4] == [str(first["depth"]), str(first["breadth"])]
    assert line[5] == f"{first['exact_accuracy']:.1%}"


def test_models_calibrate_writes_the_card(model: Path, data: Path) -> None:
    args = ("models", "calibrate", model, "--data", data, "--depth", 4, "--breadth", 2)
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    _, card = load_checkpoint(model)
    assert printed == {"tolerance": card.tolerance, **card.calibration}
    assert (printed["puzzles"], printed["breadth"], printed["data"]) == (8, 2, "p.csv.gz")
    assert "tolerance" in run(*args).stdout
    assert "target is 2" in refused(*args, "--target", 2)
    assert "limit is 0" in refused(*args, "--limit", 0)


def test_models_import_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    out = ("--name", "x", "--out", tmp_path / "x")
    assert "no such file" in refused("models", "import", tmp_path / "none.pth", *out)
    (tmp_path / "bad.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused("models", "import", tmp_path / "bad.pth", *out)
    assert not (tmp_path / "x").exists()


def test_models_widen_makes_one_that_can_be_trained_on(tmp_path: Path) -> None:
    save_random(tmp_path / "narrow")
    args = ("models", "widen", tmp_path / "narrow", "--out", tmp_path / "wide")
    assert "in " in run(*args).stdout
    (_, narrow), (_, wide) = (load_checkpoint(tmp_path / name) for name in ("narrow", "wide"))
    assert wide.operator.hidden == 2 * narrow.operator.hidden
    assert "there is a checkpoint already" in refused(*args)


def test_parity_prints_json_of_what_is_no_fixture(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    result = run("parity", tmp_path, "--json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert (row["fixture"], row["ok"], row["error"]) == ("broken", False, None)


def test_parity_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "no such folder" in refused("parity", tmp_path / "none")


def test_train_refuses_in_one_line(tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    assert "no recipe 'chess'" in refused("train", "chess", *out)
    assert "no such file" in refused("train", "sudoku4", *out, "--data", tmp_path / "none.csv")
    assert "--minutes" in refused("train", "sudoku4", *out, "--minutes", "nan")
    assert not (tmp_path / "run").exists()


TINY_RECIPE = """
name = "tiny"
steps = 100000
validate_every = 100000
validation_rows = 5
[operator]
task = "sudoku"
mixer = "units"
hidden = 8
blocks = 1
cycles = 1
updates = 2
states = "single"
constraint_kinds = 3
[[puzzles]]
size = "4x4"
share = 1
batch = 4
generate = 30
clues = [4, 6]
"""


def test_train_goes_on_where_it_stopped_and_ends_130_on_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE)
    command = [sys.executable, "-m", "eqr_core.cli", "train", "tiny.toml"]
    # No compiler: runs uncompiled, and says so.
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "text": True,
        "stderr": subprocess.PIPE,
        "stdout": subprocess.PIPE,
    }
    env = {**os.environ, "CXX": "no-such-compiler", "PYTHONPATH": str(ROOT)}
    first = subprocess.run([*command, "--minutes", "0"], env=env, check=True, **options)
    assert "1 steps" in first.stdout
    assert "no C++ compiler" in first.stderr
    with subprocess.Popen(command, env=env, **options) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("going on from step 1 in runs/tiny" in line for line in lines)
        assert any(line.startswith("step 50,") for line in lines)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 130
    done = int(re.search(r"(\d+) steps", output)[1])  # type: ignore[index]
    assert done >= 50
    again = subprocess.run([*command, "--minutes", "0"], env=env, check=True, **options)
    assert f"{done + 1} steps" in again.stdout


def test_unknown_commands_are_bad_usage() -> None:
    assert "--bogus" in refused("--bogus")
    assert "--bogus" in refused("models", "--bogus")
    assert run("--help").exit_code == 0
    assert "Commands" in run().output
    assert "nonsense" in refused("nonsense")
    assert "Missing command" in refused("models")
    assert "Missing command" in refused("generate")


def test_a_fault_of_ours_is_one_line_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr("eqr_core.solver.Solver.solve", broken)
    line = refused("solve", GRID, "--model", model, code=1)
    assert line == "error: ZeroDivisionError: by nought"


def test_help_needs_no_torch_and_no_server() -> None:
    script = (
        "import sys\n"
        "from eqr_core.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('torch', 'ray', 'pydantic') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("solve", "eval", "train", "generate", "models", "parity"):
        assert command in done.stdout


def test_an_interrupt_ends_with_130_and_no_traceback(model: Path) -> None:
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from eqr_core.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "solve", "-", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    # More than a pipe holds: once it is written, the command is reading, and waits for the end.
    process.stdin.write(" " * 500_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == ""

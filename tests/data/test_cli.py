from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from eqr_core.cli import app
from eqr_core.data.packed import load, read_packed
from eqr_core.data.puzzles import read_puzzles, write_puzzles
from eqr_core.data.stream import Wanted, first_rows

ROOT = Path(__file__).parents[2]


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("six") / "six.csv.gz"
    write_puzzles(path, first_rows(Wanted(6, (2, 3), seed=2), 50))
    return path


def test_the_same_options_write_the_same_bytes(tmp_path: Path) -> None:
    common = ("generate", "sudoku", "--size", 6, "--count", 30, "--min-rating", 1)
    for name, workers in (("a", 1), ("b", 2)):
        out = tmp_path / f"{name}.csv.gz"
        result = run(*common, "--max-rating", 3, "--workers", workers, "--out", out)
        assert result.exit_code == 0, result.output
        assert "30 puzzles" in result.stderr
    first = (tmp_path / "a.csv.gz").read_bytes()
    assert first == (tmp_path / "b.csv.gz").read_bytes()
    assert {row.rating for row in read_puzzles(tmp_path / "a.csv.gz")} <= {1, 2, 3}


def test_a_stream_that_runs_dry_leaves_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    line = refused("generate", "sudoku", "--size", 4, "--count", 5000, "--clues", 15, "--out", out)
    rows = list(read_puzzles(out))
    assert len(rows) > 3000
    assert line.endswith(f"and no more; {len(rows)} of 5000 puzzles in {out}")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_leaves_a_whole_shorter_file(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "p.csv.gz"
    options = ["--count", "1000000", "--workers", str(workers), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "eqr_core.cli", "generate", "sudoku", "--size", "4", *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    while not (out.exists() and out.stat().st_size):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    error = process.stderr.read()
    assert process.wait() == 130
    rows = list(read_puzzles(out))
    assert error == f"interrupted: {len(rows)} of 1000000 puzzles in {out}\n"
    assert rows == list(first_rows(Wanted(4, (2, 2)), len(rows)))
    assert gzip.decompress(out.read_bytes()).endswith(b"\n")


def test_check_says_what_is_wrong_and_exits_with_1(six: Path, tmp_path: Path) -> None:
    good = run("data", "check", six)
    assert good.exit_code == 0, good.output
    assert "duplicates" in good.stdout
    doubled = tmp_path / "doubled.csv"
    rows = list(read_puzzles(six))
    write_puzzles(doubled, [*rows, *rows[:3]])
    assert run("data", "check", doubled).exit_code == 1
    both = run("data", "check", six, doubled, "--json")
    assert both.exit_code == 1
    document = json.loads(both.stdout)
    assert [file["duplicates"] for file in document["files"]] == [0, 3]
    assert document["pair"]["duplicates"] == 53
    assert document["faults"] == 56


def test_split_parts_a_file_and_check_agrees(six: Path, tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv.gz", tmp_path / "test.npz"
    result = run("data", "split", six, "--held-out", 10, "--train", train, "--test", test)
    assert result.exit_code == 0, result.output
    assert (len(read_packed(train)), len(load(test))) == (40, 10)
    assert run("data", "check", train, test).exit_code == 0
    assert run("data", "check", six, test).exit_code == 1


@pytest.mark.parametrize("name", ["p.npz", "p.csv.gz"])
def test_import_writes_what_training_reads(six: Path, tmp_path: Path, name: str) -> None:
    result = run("data", "import", six, "--sample", 20, "--seed", 3, "--out", tmp_path / name)
    assert result.exit_code == 0, result.output
    kept = read_packed(tmp_path / name)
    assert len(kept) == 20
    known = {bytes(question) for question in read_packed(six).question}
    assert {bytes(question) for question in kept.question} <= known


def test_bad_arguments_are_one_line(six: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.npz"
    assert "no such file" in refused("data", "import", tmp_path / "none.csv", "--out", out)
    assert "must end in" in refused("data", "import", six, "--out", tmp_path / "p.txt")
    assert "no folder" in refused("data", "import", six, "--out", tmp_path / "none" / "p.npz")
    assert "held_out is 50" in refused(
        "data", "split", six, "--held-out", 50, "--train", out, "--test", out
    )
    assert "none.csv" in refused("data", "check", tmp_path / "none.csv")


def test_eval_reads_the_benchmark_by_its_name() -> None:
    result = run(
        "eval",
        "--model",
        "sudoku",
        "--data",
        "benchmark",
        "--limit",
        5,
        "--depth",
        2,
        "--json",
        "-",
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["rows"], report["data"]) == (5, "benchmark")

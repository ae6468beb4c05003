from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from typer.testing import CliRunner

from eqr_core.cli import app
from eqr_core.data.forms import form_of
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.examples import show
from eqr_core.evaluation.plots.examples import answers
from eqr_core.evaluation.plots.sizes import accuracy_by_size
from eqr_core.evaluation.plots.style import ORANGE
from eqr_core.evaluation.rows import Puzzle
from eqr_core.evaluation.sweep import Sweep
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks import task_at
from eqr_core.tasks.sudoku import Sudoku

SWEEP = Sweep((2, 6), (1, 2), ("exhausted",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `grid` operator with random weights, which solves no maze."""
    torch.manual_seed(0)
    config = OperatorConfig(
        task="maze",
        mixer="grid",
        hidden=8,
        blocks=1,
        cycles=1,
        updates=2,
        states="single",
        expansion=2.0,
        vocabulary=6,
    )
    folder = tmp_path_factory.mktemp("model") / "m"
    card = Card(name="random", task="maze", operator=config, sizes=("5x5-64x64",))
    save_checkpoint(folder, Operator(config, task_at("maze", 5, 5)).state_dict(), card)
    return folder


def mazes(rows: int, columns: int, count: int) -> list[PuzzleRow]:
    return list(form_of("maze").generate(task_at("maze", rows, columns), count, 3, {}))


def wrong_cells(puzzle: Puzzle, answer: object) -> int:
    got = puzzle.task.encode(answer)  # type: ignore[arg-type]
    return int((got != puzzle.answer_tokens).sum())


def test_an_example_is_what_the_engine_answers(model: Path) -> None:
    rows = mazes(7, 9, 6)
    found = evaluate(model, rows, SWEEP, seed=5)
    (easiest,) = found.examples
    assert rows[easiest].rating == min(row.rating for row in rows)
    (example,) = show(model, rows, SWEEP, found.examples, seed=5)
    assert [depth for depth, _ in example.answers] == [1, 4, 6]
    engine = Engine([model], slots=4)
    puzzle = example.puzzle
    for depth, answer in example.answers:
        budget = Budget(depth, 2, stop="exhausted")
        request = SolveRequest(puzzle.task, puzzle.grid, "random", budget, 5 + easiest)
        assert engine.solve([request])[0].grid == answer


def test_examples_are_drawn_with_every_wrong_cell_marked(model: Path) -> None:
    rows = mazes(7, 9, 6)
    found = evaluate(model, rows, SWEEP)
    (example,) = show(model, rows, SWEEP, found.examples)
    figure = answers(found, [example])
    assert figure is not None
    for panel, (depth, answer) in zip(figure.axes, example.answers, strict=True):
        wrong = wrong_cells(example.puzzle, answer)
        assert wrong > 1
        assert panel.get_title() == f"depth {depth}: {wrong} cells wrong"
        marks = [line for line in panel.lines if to_hex(line.get_color()) == ORANGE]
        assert sum(np.size(line.get_xdata()) for line in marks) == wrong
        assert {line.get_marker() for line in marks} == {"x", "o"}
        assert panel.images[0].get_array().shape == (7, 9)  # type: ignore[union-attr]
    assert answers(found, []) is None


def test_solved_and_text_grids_are_drawn_too() -> None:
    rows = list(generate_sudoku(Sudoku((2, 2)), 3, seed=2))
    sweep = Sweep((32,), (1,), ("converged",))
    found = evaluate("sudoku", rows, sweep)
    assert found.main.exact == 3
    (example,) = show("sudoku", rows, sweep, found.examples)
    figure = answers(found, [example])
    assert figure is not None
    last = figure.axes[-1]
    assert last.get_title() == "depth 32: solved"
    assert "".join(text.get_text() for text in last.texts) == rows[example.row].answer


def test_the_hardest_solved_of_two_sources_and_the_easiest_wrong_are_chosen() -> None:
    solved = list(generate_sudoku(Sudoku((2, 2)), 4, seed=2))
    hard = list(generate_sudoku(Sudoku((3, 3)), 2, seed=2))
    rated = [
        PuzzleRow(source, row.question, row.answer, rating)
        for row, source, rating in zip(
            [*solved, *hard], ["a", "a", "b", "b", "c", "c"], [3, 7, 2, 5, 9, 8], strict=True
        )
    ]
    # One step solves these 4×4 grids and none of the 9×9 ones.
    found = evaluate("sudoku", rated, Sweep((1,), (1,), ("exhausted",)))
    assert [found.main.source[name]["exact"] for name in "abc"] == [2, 2, 0]
    assert found.examples == (1, 3, 5)


def test_several_files_give_accuracy_by_size(model: Path, tmp_path: Path) -> None:
    files = []
    for rows, columns, count in ((9, 9, 3), (5, 7, 2)):
        files.append(tmp_path / f"{rows}x{columns}.csv")
        write_puzzles(files[-1], mazes(rows, columns, count))
    out = tmp_path / "out"
    command = ["eval", "--model", model, "--depth", "1,3", "--out", out]
    result = CliRunner().invoke(
        app, [*map(str, command), "--data", str(files[0]), "--data", str(files[1])]
    )
    assert result.exit_code == 0, result.output
    assert "9x9.csv, 5x7.csv: 0 of 5 exact" in result.stdout
    assert result.stdout.index("│ 5x7 ") < result.stdout.index("│ 9x9 ")
    with (out / "strata.csv").open(newline="") as file:
        sizes = [line for line in csv.DictReader(file) if line["by"] == "size"]
    counts = [(line["name"], line["rows"]) for line in sizes if line["stop"] == "exhausted"]
    assert counts == 2 * [("5x7", "2"), ("9x9", "3")]
    assert {path.stem for path in out.glob("*.png")} >= {"sizes", "examples"}


def test_one_size_has_no_plot_by_size(model: Path) -> None:
    found = evaluate(model, mazes(5, 5, 2), SWEEP)
    assert list(found.main.size) == ["5x5"]
    assert accuracy_by_size(found) is None

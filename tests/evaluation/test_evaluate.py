from __future__ import annotations

import json
from pathlib import Path

import pytest

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.errors import DataError, ModelError
from eqr_core.evaluation.evaluate import evaluate, parse_rows, read_rows, record_report
from eqr_core.evaluation.report import rating_class
from eqr_core.model.checkpoint import load_checkpoint
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random

TASK = Sudoku((2, 2))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    save_random(tmp_path / "m", tolerance=0.05)
    return Engine([tmp_path / "m"], slots=4)


@pytest.fixture
def rows() -> list[PuzzleRow]:
    """Ten puzzles that random weights do not solve, and four full grids, which they keep."""
    hard = list(generate_sudoku(TASK, 10, seed=1))
    full = [PuzzleRow("full", row.answer, row.answer, 40) for row in hard[:4]]
    return [*hard, *full]


def test_counts_by_source_and_rating(engine: Engine, rows: list[PuzzleRow]) -> None:
    outcomes: list[bool] = []
    report = evaluate(
        engine, rows, Budget(depth=5, breadth=1), data="mix", on_answer=outcomes.append
    )
    assert (report.rows, report.exact, sum(outcomes), len(outcomes)) == (14, 4, 4, 14)
    assert report.exact_accuracy == 4 / 14
    assert report.source["full"]["exact_accuracy"] == 1
    assert report.source["generated_4x4"] | {"exact_interval": 0} == {
        "rows": 10,
        "exact": 0,
        "exact_accuracy": 0,
        "exact_interval": 0,
    }
    assert report.rating["0"]["rows"] == 10
    assert report.rating[">30"]["rows"] == 4
    assert set(report.rating) == {"0", ">30"}
    assert sum(report.finish_reasons.values()) == 14
    assert report.verified == 4 / 14
    assert 4 / 14 < report.cell_accuracy < 1
    low, high = report.exact_interval
    assert low < report.exact_accuracy < high
    assert json.loads(json.dumps(report.to_dict()))["rows"] == 14


def test_each_row_is_what_the_engine_answers_alone(engine: Engine, rows: list[PuzzleRow]) -> None:
    budget = Budget(depth=8, breadth=3)
    report = evaluate(engine, rows, budget, seed=11)
    puzzles = parse_rows(rows)
    answers = [
        engine.solve([SolveRequest(TASK, p.grid, report.model, budget, seed=11 + index)])[0]
        for index, p in enumerate(puzzles)
    ]
    cells = [
        given == wanted
        for answer, puzzle in zip(answers, puzzles, strict=True)
        for a, b in zip(answer.grid, puzzle.answer, strict=True)
        for given, wanted in zip(a, b, strict=True)
    ]
    assert report.mean_iterations == sum(answer.iterations for answer in answers) / 14
    assert report.cell_accuracy == sum(cells) / len(cells)
    assert report.converged == sum(answer.converged for answer in answers) / 14
    assert report.digest == engine.models[report.model].digest


def test_exhausted_runs_every_trajectory_to_the_full_depth(
    engine: Engine, rows: list[PuzzleRow]
) -> None:
    report = evaluate(engine, rows[:10], Budget(depth=7, breadth=3, stop="exhausted"))
    assert report.mean_iterations == 7
    assert report.mean_nfe == 21
    assert report.finish_reasons == {"exhausted": 10}


def test_a_file_of_several_sizes_is_measured_by_one_model(engine: Engine) -> None:
    rows = [
        row
        for box in ((2, 2), (2, 3), (3, 3))
        for row in generate_sudoku(Sudoku(box), 2, seed=1, clues=None if box != (3, 3) else 40)
    ]
    report = evaluate(engine, rows, Budget(depth=3, breadth=1))
    assert set(report.source) == {"generated_4x4", "generated_6x6", "generated_9x9"}


def test_an_unknown_model_is_refused(engine: Engine, rows: list[PuzzleRow]) -> None:
    with pytest.raises(ModelError, match="nobody"):
        evaluate(engine, rows, Budget(depth=3, breadth=1), model="nobody")


def test_rows_that_cannot_be_measured_are_named(engine: Engine, rows: list[PuzzleRow]) -> None:
    good = rows[0]
    swapped = good.answer[1] + good.answer[0] + good.answer[2:]
    for bad in (
        PuzzleRow("x", "11" + "." * 14, good.answer, 0),
        PuzzleRow("x", "." * 16, swapped, 0),
        PuzzleRow("x", "." * 16, "." * 16, 0),
        PuzzleRow("x", "." * 81, good.answer, 0),
        PuzzleRow("x", good.answer, rows[1].answer, 0),
    ):
        with pytest.raises(DataError, match="puzzle 2: "):
            parse_rows([good, bad])
    with pytest.raises(DataError, match="no puzzles"):
        evaluate(engine, [], Budget(depth=3, breadth=1))


def test_reading_rows(tmp_path: Path, rows: list[PuzzleRow]) -> None:
    path = tmp_path / "p.csv.gz"
    write_puzzles(path, rows)
    assert read_rows(path) == rows
    assert read_rows(path, 3) == rows[:3]
    with pytest.raises(DataError, match="limit is 0"):
        read_rows(path, 0)
    write_puzzles(path, [])
    with pytest.raises(DataError, match="no puzzles"):
        read_rows(path)


@pytest.mark.parametrize(
    ("rating", "name"),
    [(0, "0"), (1, "1-10"), (10, "1-10"), (11, "11-30"), (30, "11-30"), (31, ">30")],
)
def test_rating_classes(rating: int, name: str) -> None:
    assert rating_class(rating) == name


def test_a_recorded_report_replaces_the_one_on_the_same_terms(
    engine: Engine, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    def record(budget: Budget, count: int, seed: int) -> None:
        report = evaluate(engine, rows[:count], budget, data="mix", seed=seed)
        record_report(tmp_path / "m", report, "mix.csv")

    record(Budget(depth=5, breadth=1), 12, 0)
    record(Budget(depth=6, breadth=1), 12, 0)
    record(Budget(depth=5, breadth=1, nfe=3), 12, 0)
    record(Budget(depth=5, breadth=1), 14, 1)
    with pytest.raises(DataError, match="on 14 rows"):
        record(Budget(depth=5, breadth=1), 2, 0)
    _, card = load_checkpoint(tmp_path / "m")
    assert [(r["rows"], r["depth"], r["nfe"], r["seed"]) for r in card.results] == [
        (12, 6, None, 0),
        (12, 5, 3, 0),
        (14, 5, None, 1),
    ]


def test_a_report_of_other_weights_is_not_recorded(
    engine: Engine, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    report = evaluate(engine, rows, Budget(depth=5, breadth=1), data="mix")
    save_random(tmp_path / "m", seed=7)
    with pytest.raises(ModelError, match="has changed since"):
        record_report(tmp_path / "m", report, "mix.csv")

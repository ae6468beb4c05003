from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.halting import Halt
from eqr_core.errors import BudgetError, DataError, EqrError, ModelError
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.part import Part
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.report import Report
from eqr_core.evaluation.results import record_report
from eqr_core.evaluation.rows import parse_rows, read_rows
from eqr_core.evaluation.sweep import Sweep
from eqr_core.model.checkpoint import load_checkpoint, save_checkpoint
from eqr_core.tasks.base import Task
from eqr_core.tasks.maze import Maze
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random

ROOT = Path(__file__).parents[2]
TASK = Sudoku((2, 2))
GAIN = 2.5
"""Of the random weights: trajectories settle late, apart from each other, or not at all."""
TOLERANCE = 0.02


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Random weights whose trajectories differ in when they settle and what they say."""
    card = save_random(tmp_path / "m", tolerance=TOLERANCE)
    weights, _ = load_checkpoint(tmp_path / "m")
    save_checkpoint(tmp_path / "m", {n: GAIN * value for n, value in weights.items()}, card)
    return tmp_path / "m"


@pytest.fixture
def rows() -> list[PuzzleRow]:
    """Ten puzzles that random weights do not solve, and four full grids, which they keep."""
    hard = list(generate_sudoku(TASK, 10, seed=1))
    full = [PuzzleRow("full", row.answer, row.answer, 40) for row in hard[:4]]
    return [*hard, *full]


def single(depth: int, breadth: int, **more: Any) -> Sweep:
    stop = more.pop("stop", "converged")
    return Sweep((depth,), (breadth,), (stop,), **more)


def without_seconds(report: Report) -> dict[str, Any]:
    return {**asdict(report), "seconds": None}


def test_counts_by_source_and_rating(model: Path, rows: list[PuzzleRow]) -> None:
    calls: list[tuple[int, int | None]] = []
    found = evaluate(
        model, rows, single(5, 1), data="mix", on_rows=lambda *call: calls.append(call)
    )
    report = found.main
    assert (report.rows, report.exact) == (14, 4)
    assert calls[0] == (0, None)
    assert sum(count for count, _ in calls) == 14
    assert sum(right or 0 for _, right in calls) == 4
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
    assert json.loads(json.dumps(found.to_dict()))["rows"] == 14


@pytest.mark.parametrize(
    ("selection", "noise", "nfe", "halt"),
    [
        ("residual", 0.0, None, "residual"),
        ("majority", 0.0, 40, "residual"),
        ("residual", 0.02, None, "residual"),
        ("residual", 0.0, None, "unchanged"),
        ("residual", 0.0, None, "q"),
    ],
)
def test_every_cell_is_what_the_engine_answers_under_that_budget_alone(
    model: Path, rows: list[PuzzleRow], selection: Any, noise: float, nfe: int | None, halt: Halt
) -> None:
    """Fixed and adaptive, whatever the other cells; NFE as with a slot for each trajectory."""
    if halt == "q":
        weights, card = load_checkpoint(model)
        save_checkpoint(model, {**weights, "q_head.bias": torch.ones(1)}, card)
    sweep = Sweep((2, 6, 24), (1, 7), ("exhausted", "converged", "verified"), nfe, halt=halt)
    found = evaluate(model, rows, sweep, seed=11, noise=noise, selection=selection)
    puzzles = parse_rows(rows)
    engine = Engine([model], slots=256)
    seen: Counter[str] = Counter()
    for budget, report in zip(sweep.budgets, found.reports, strict=True):
        requests = [
            SolveRequest(TASK, p.grid, "random", budget, 11 + i, noise, selection)
            for i, p in enumerate(puzzles)
        ]
        answers = [engine.solve([request])[0] for request in requests]
        right = [_right_cells(a, p.answer) for a, p in zip(answers, puzzles, strict=True)]
        assert (report.stop, report.depth, report.breadth) == (
            budget.stop,
            budget.depth,
            budget.breadth,
        )
        assert report.exact == sum(count == 16 for count in right)
        assert report.cell_accuracy == sum(right) / (16 * 14)
        assert report.converged == sum(answer.converged for answer in answers) / 14
        assert report.verified == sum(answer.verified for answer in answers) / 14
        assert report.mean_iterations == sum(answer.iterations for answer in answers) / 14
        assert report.mean_nfe == sum(answer.nfe for answer in answers) / 14
        assert report.finish_reasons == Counter(answer.finish_reason for answer in answers)
        seen.update(f"{budget.stop} {answer.finish_reason}" for answer in answers)
    assert {"converged converged", "converged exhausted"} <= set(seen)


def test_states_that_overflow_have_no_answer(model: Path, rows: list[PuzzleRow]) -> None:
    weights, card = load_checkpoint(model)
    save_checkpoint(model, {n: 1e30 * value for n, value in weights.items()}, card)
    sweep = Sweep((4,), (3,), ("exhausted", "converged"))
    found = evaluate(model, rows[:10], sweep)
    clues = sum(16 - row.question.count(".") for row in rows[:10])
    engine = Engine([model])
    for budget, report in zip(sweep.budgets, found.reports, strict=True):
        answers = [
            engine.solve([SolveRequest(TASK, p.grid, "random", budget, i)])[0]
            for i, p in enumerate(parse_rows(rows[:10]))
        ]
        assert report.finish_reasons == {"diverged": 10}
        assert report.cell_accuracy == clues / 160
        assert report.mean_nfe == sum(answer.nfe for answer in answers) / 10
    assert found.diverged == 30
    assert found.residual == []
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_cell_of_a_sweep_is_the_single_evaluation(model: Path, rows: list[PuzzleRow]) -> None:
    sweep = Sweep((2, 9, 24), (1, 4), ("exhausted", "converged"), nfe=40)
    found = evaluate(model, rows, sweep, seed=5)
    for budget, report in zip(sweep.budgets, found.reports, strict=True):
        alone = Sweep((budget.depth,), (budget.breadth,), (budget.stop,), nfe=40)
        (own,) = evaluate(model, rows, alone, seed=5).reports
        assert without_seconds(own) == without_seconds(report)


def test_answers_do_not_depend_on_slots_in_the_engine(model: Path, rows: list[PuzzleRow]) -> None:
    """The crowded engine may spend more on a wave, and answers the same."""
    sweep = Sweep((24,), (8,), ("converged",))
    (report,) = evaluate(model, rows, sweep, slots=1).reports
    (same,) = evaluate(model, rows, sweep, slots=512).reports
    assert without_seconds(report) == without_seconds(same)
    crowded = Engine([model], slots=3)
    requests = [
        SolveRequest(TASK, p.grid, "random", sweep.budgets[0], i)
        for i, p in enumerate(parse_rows(rows))
    ]
    answers = crowded.solve(requests)
    assert report.mean_iterations == sum(answer.iterations for answer in answers) / 14
    assert report.converged == sum(answer.converged for answer in answers) / 14


def test_adaptive_budgets_run_only_what_they_use(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    sweep = Sweep((24,), (8,), ("converged",))
    (report,) = evaluate(model, rows[:10], sweep, folder=tmp_path / "out").reports
    computed = sum(int(part.steps.sum()) for part in _parts(tmp_path / "out"))
    assert computed == report.mean_nfe * 10 < 24 * 8 * 10


def test_exhausted_runs_every_trajectory_to_the_full_depth(
    model: Path, rows: list[PuzzleRow]
) -> None:
    report = evaluate(model, rows[:10], single(7, 3, stop="exhausted")).main
    assert report.mean_iterations == 7
    assert report.mean_nfe == 21
    assert report.finish_reasons == {"exhausted": 10}


def test_a_file_of_several_sizes_is_measured_by_one_model(model: Path) -> None:
    rows = [
        row
        for box in ((2, 2), (2, 3), (3, 3))
        for row in generate_sudoku(Sudoku(box), 2, seed=1, clues=None if box != (3, 3) else 40)
    ]
    mixed = [rows[i] for i in (0, 2, 4, 1, 3, 5)]
    report = evaluate(model, mixed, single(3, 1)).main
    assert set(report.source) == {"generated_4x4", "generated_6x6", "generated_9x9"}


def test_models_that_do_not_fit_are_refused(rows: list[PuzzleRow], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nobody"):
        evaluate("nobody", rows, single(3, 1))
    card = save_random(tmp_path / "small")
    text = (tmp_path / "small" / "card.json").read_text()
    (tmp_path / "small" / "card.json").write_text(
        text.replace(json.dumps(list(card.sizes), indent=2).replace("\n", "\n  "), '["9x9"]')
    )
    with pytest.raises(ModelError, match="puzzle 1 is sudoku 4x4"):
        evaluate(tmp_path / "small", rows, single(3, 1))


def test_rows_that_cannot_be_measured_are_named(model: Path, rows: list[PuzzleRow]) -> None:
    good = rows[0]
    swapped = good.answer[1] + good.answer[0] + good.answer[2:]
    for bad, message in (
        (PuzzleRow("x", "11" + "." * 14, good.answer, 0), "more than once"),
        (PuzzleRow("x", "." * 16, swapped, 0), "more than once"),
        (PuzzleRow("x", "." * 16, "." * 16, 0), "does not solve"),
        (PuzzleRow("x", "." * 16, "", 0), "no answer"),
        (PuzzleRow("x", "." * 81, good.answer, 0), "does not solve"),
        (PuzzleRow("x", good.answer, rows[1].answer, 0), "does not solve"),
    ):
        with pytest.raises(DataError, match=f"puzzle 2: .*{message}"):
            evaluate(model, [good, bad], single(3, 1))
    with pytest.raises(DataError, match="no puzzles"):
        evaluate(model, [], single(3, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64 - 3}, "seed"),
        ({"noise": 11.0}, "noise"),
        ({"selection": "best"}, "selection"),
        ({"workers": 0}, "workers"),
    ],
)
def test_settings_outside_their_limits_are_refused(
    model: Path, rows: list[PuzzleRow], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(BudgetError, match=message):
        evaluate(model, rows, single(3, 1), **given)


@pytest.mark.parametrize(
    ("depth", "breadth", "stop", "error", "message"),
    [
        ("1,x", "1", None, DataError, "depth is '1,x'"),
        ("", "1", None, DataError, "depth is ''"),
        ("4,4", "1", None, DataError, "depths: 4 stands more than once"),
        ("0,4", "1", None, BudgetError, "depth: 0"),
        ("4", "1,2000", None, BudgetError, "breadth: 2000"),
        ("4", "1", "never", BudgetError, "stop: 'never'"),
        ("4", "1", "converged,converged", DataError, "stops: converged stands"),
    ],
)
def test_impossible_sweeps_are_refused(
    depth: str, breadth: str, stop: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Sweep.parse(depth, breadth, stop)


def test_a_sweep_is_fixed_and_adaptive_a_single_budget_adaptive() -> None:
    assert Sweep.parse("8", "2").stops == ("converged",)
    sweep = Sweep.parse("16,4", "1, 8")
    assert sweep.stops == ("exhausted", "converged")
    assert (sweep.depths, sweep.breadths) == ((4, 16), (1, 8))
    assert sweep.budgets[sweep.main] == Budget(16, 8, stop="exhausted")


def test_an_interrupted_evaluation_goes_on(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    """It computes what is missing and nothing else, and comes to the same."""
    many, sweep = rows[:10] * 20, Sweep((2, 12), (1, 4))
    whole = evaluate(model, many, sweep, folder=tmp_path / "a")
    parts = sorted((tmp_path / "a" / "parts").iterdir())
    assert len(parts) > 2

    class Stop(Exception):
        pass

    done = 0

    def stop_midway(count: int, right: int | None) -> None:
        nonlocal done
        done += count
        if done > 100:
            raise Stop

    with pytest.raises(Stop):
        evaluate(model, many, sweep, folder=tmp_path / "b", on_rows=stop_midway)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "b" / "parts").iterdir()}
    assert 0 < len(kept) < len(parts)
    calls: list[tuple[int, int | None]] = []
    again = evaluate(
        model, many, sweep, folder=tmp_path / "b", on_rows=lambda *call: calls.append(call)
    )
    assert calls[0] == (len(kept) * sweep.chunk_rows, None)
    assert sum(count for count, _ in calls) == 200
    for name, written in kept.items():
        assert (tmp_path / "b" / "parts" / name).stat().st_mtime_ns == written
    assert [without_seconds(r) for r in again.reports] == [
        without_seconds(r) for r in whole.reports
    ]


def test_another_evaluation_in_the_folder_is_refused(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    out, sweep = tmp_path / "out", Sweep((2, 4), (1,))
    evaluate(model, rows, sweep, folder=out)
    for given, message in (
        ({"sweep": Sweep((2, 5), (1,))}, r"depths is \[2, 4\], not \[2, 5\]"),
        ({"sweep": Sweep((2, 4), (1,), tolerance=0.1)}, "tolerance is 0.02, not 0.1"),
        ({"seed": 1}, "seed is 0, not 1"),
        ({"noise": 0.1}, "noise is 0.0, not 0.1"),
        ({"selection": "majority"}, "selection is residual, not majority"),
        ({"compiled": True}, "arithmetic is eager, not compiled"),
        ({"rows": rows[:13]}, "rows is 14, not 13|data_digest"),
        ({"rows": rows[::-1]}, "data_digest"),
    ):
        values: dict[str, Any] = {"rows": rows, "sweep": sweep, **given}
        with pytest.raises(DataError, match=message):
            evaluate(model, folder=out, **values)
    save_random(model, seed=9, tolerance=TOLERANCE)
    with pytest.raises(DataError, match="another evaluation, whose digest"):
        evaluate(model, rows, sweep, folder=out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="holds other files"):
        evaluate(model, rows, sweep, folder=tmp_path / "other")


def test_a_damaged_part_is_named(model: Path, rows: list[PuzzleRow], tmp_path: Path) -> None:
    evaluate(model, rows, single(3, 1), folder=tmp_path / "out")
    (part,) = (tmp_path / "out" / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"rows-0000000-0000013\.npz: damaged"):
        evaluate(model, rows, single(3, 1), folder=tmp_path / "out")
    part.unlink()
    assert evaluate(model, rows, single(3, 1), folder=tmp_path / "out").main.rows == 14


def test_several_processes_come_to_the_same(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    many, sweep = rows[:10] * 15, Sweep((2, 12), (1, 4))
    alone = evaluate(model, many, sweep, folder=tmp_path / "a")
    calls: list[tuple[int, int | None]] = []
    together = evaluate(
        model,
        many,
        sweep,
        folder=tmp_path / "b",
        workers=2,
        on_rows=lambda *call: calls.append(call),
    )
    assert sum(count for count, _ in calls) == 150
    for a, b in zip(_parts(tmp_path / "a"), _parts(tmp_path / "b"), strict=True):
        for name in ("steps", "residual", "prediction", "right_cells", "cells", "score"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert [without_seconds(r) for r in together.reports] == [
        without_seconds(r) for r in alone.reports
    ]


def test_a_killed_worker_ends_the_evaluation_and_what_is_done_stays(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    """The same command goes on; nothing hangs and no worker stays behind."""
    many, out = rows[:10] * 15, tmp_path / "out"
    victim: list[int] = []

    def kill_one(count: int, right: int | None) -> None:
        if count and not victim:
            victim.append(_children()[0])
            os.kill(victim[0], signal.SIGKILL)

    with pytest.raises(EqrError, match="a worker died"):
        evaluate(model, many, Sweep((24,), (8,), ("exhausted",)), folder=out, workers=2,
                 on_rows=kill_one)  # fmt: skip
    assert not _children()
    again = evaluate(model, many, Sweep((24,), (8,), ("exhausted",)), folder=out)
    assert again.main.rows == 150


def test_an_interrupted_command_leaves_no_worker(
    model: Path, rows: list[PuzzleRow], tmp_path: Path
) -> None:
    write_puzzles(tmp_path / "p.csv", rows[:10] * 100)
    command = [sys.executable, "-m", "eqr_core.cli", "eval", "--model", model, "--workers", "2",
               "--data", tmp_path / "p.csv", "--depth", "4,24", "--breadth", "1,8",
               "--out", tmp_path / "out"]  # fmt: skip
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not list((tmp_path / "out").glob("parts/*.npz")):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == ""  # ends when the last worker has closed it
        assert process.wait() == 130
    done = subprocess.run([*map(str, command), "--json", "-"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1000


def test_torch_keeps_its_threads(model: Path, rows: list[PuzzleRow]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate(model, rows, single(3, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


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
    ("task", "rating", "name"),
    [
        *((Sudoku(), *pair) for pair in [(-1, "0"), (0, "0"), (1, "1-10"), (10, "1-10")]),
        *((Sudoku(), *pair) for pair in [(11, "11-30"), (30, "11-30"), (31, ">30")]),
        *((Maze(5, 5), *pair) for pair in [(1, "0-9"), (9, "0-9"), (10, "10-19"), (99, "40-99")]),
        *((Maze(5, 5), *pair) for pair in [(100, "100-199"), (140, "100-199"), (200, ">199")]),
    ],
)
def test_rating_classes(task: Task, rating: int, name: str) -> None:
    assert RatingClasses(task.rating_edges).name(rating) == name


def test_a_recorded_report_replaces_the_one_on_the_same_terms(
    model: Path, rows: list[PuzzleRow]
) -> None:
    def record(sweep: Sweep, count: int, seed: int) -> None:
        report = evaluate(model, rows[:count], sweep, data="mix", seed=seed).main
        record_report(model, report, "mix.csv")

    record(single(5, 1), 12, 0)
    record(single(6, 1), 12, 0)
    record(single(5, 1, nfe=3), 12, 0)
    record(single(5, 1), 14, 1)
    with pytest.raises(DataError, match="on 14 rows"):
        record(single(5, 1), 2, 0)
    _, card = load_checkpoint(model)
    assert [(r["rows"], r["depth"], r["nfe"], r["seed"]) for r in card.results] == [
        (12, 6, None, 0),
        (12, 5, 3, 0),
        (14, 5, None, 1),
    ]


def test_a_report_of_other_weights_is_not_recorded(model: Path, rows: list[PuzzleRow]) -> None:
    report = evaluate(model, rows, single(5, 1), data="mix").main
    save_random(model, seed=7)
    with pytest.raises(ModelError, match="has changed since"):
        record_report(model, report, "mix.csv")


def _right_cells(answer: Answer, wanted: Any) -> int:
    return sum(
        given == right
        for a, b in zip(answer.grid, wanted, strict=True)
        for given, right in zip(a, b, strict=True)
    )


def _parts(folder: Path) -> list[Part]:
    return [Part.load(path) for path in sorted((folder / "parts").iterdir())]


def _children() -> list[int]:
    """Worker processes of this one: the resource tracker of multiprocessing is none."""
    import multiprocessing

    return [child.pid or 0 for child in multiprocessing.active_children()]

from __future__ import annotations

import numpy as np
import pytest

from eqr_core.evaluation.curves import Flags, Residuals
from eqr_core.evaluation.landscape import REGIMES, Input, Landscape, diagnose
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.report import Subject
from eqr_core.tasks.sudoku import Sudoku

STILL, MOVING = 1e-5, 0.2


def trajectories(*ends: tuple[float, bool]) -> tuple[Residuals, Flags]:
    """Five steps of each, that all look alike until the last three; (residual then, right)."""
    residual = np.full((len(ends), 5), 0.5, np.float32)
    right = np.zeros((len(ends), 5), np.bool_)
    for row, (last, correct) in enumerate(ends):
        residual[row, 2:] = last
        right[row, -1] = correct
    return residual, right


@pytest.mark.parametrize(
    ("ends", "regime"),
    [
        ([(STILL, True)] * 4, "d"),
        ([(STILL, True)] * 3 + [(MOVING, False)], "d"),
        ([(MOVING, True)] * 4, "d"),
        ([(STILL, True)] * 2 + [(MOVING, False)] * 2, "c"),
        ([(STILL, True)] + [(MOVING, False)] * 3, "c"),
        ([(STILL, True)] * 3 + [(STILL, False)], "b"),
        ([(STILL, True)] + [(STILL, False)] * 3, "b"),
        ([(STILL, False)] * 4, "a"),
        ([(STILL, False)] * 2 + [(MOVING, False)] * 2, "a"),
        ([(STILL, False)] + [(MOVING, False)] * 3, "undecided"),
        ([(MOVING, False)] * 4, "undecided"),
        ([(STILL, True)], "d"),
        ([(STILL, False)], "a"),
    ],
)
def test_regimes(ends: list[tuple[float, bool]], regime: str) -> None:
    assert diagnose(*trajectories(*ends)).regime == regime


def test_right_on_the_way_and_wrong_at_the_end_is_wrong() -> None:
    residual, right = trajectories((STILL, False))
    right[0, :-1] = True
    assert diagnose(residual, right).right == 0


def test_a_diverged_trajectory_has_not_settled() -> None:
    residual, right = trajectories((STILL, False), (STILL, False))
    residual[:, -1] = np.nan
    assert diagnose(residual, right) == Input(2, 0, 0, 0)


def test_path_noise_keeps_a_settled_state_moving() -> None:
    beta = 0.01
    residual, right = trajectories((1.4 * beta, True))
    assert diagnose(residual, right).settled == 0
    assert diagnose(residual, right, beta).settled == 1


def test_the_table_counts_by_rating_and_source() -> None:
    landscape = Landscape(RatingClasses(Sudoku().rating_edges))
    aligned, lost = Input(4, 4, 4, 0), Input(4, 0, 1, 1)
    landscape.add(0, Subject("easy", 0, 9, 9), aligned)
    landscape.add(1, Subject("hard", 40, 9, 9), aligned)
    landscape.add(2, Subject("hard", 5, 9, 9), lost)
    table = {(e["by"], e["name"]): e for e in landscape.table()}
    assert list(table) == [
        ("all", ""),
        ("rating", "0"),
        ("rating", "1-10"),
        ("rating", ">30"),
        ("source", "easy"),
        ("source", "hard"),
    ]
    assert table["all", ""]["inputs"] == 3
    assert table["all", ""]["regimes"] == dict.fromkeys(REGIMES, 0) | {"d": 2, "undecided": 1}
    assert table["all", ""]["settled_share"] == 9 / 12
    assert table["source", "hard"]["regimes"]["undecided"] == 1
    assert table["rating", "1-10"]["settled_wrong_share"] == 1 / 4
    assert table["rating", ">30"]["right_share"] == 1

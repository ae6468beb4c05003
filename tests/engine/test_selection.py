from __future__ import annotations

import math

import pytest

from eqr_core.engine.budget import Budget
from eqr_core.engine.halting import has_converged, has_diverged, score
from eqr_core.engine.selection import agreement, choose
from eqr_core.engine.trajectory import FinishReason, Outcome, Request, Trajectory


def path(index: int, outcome: Outcome, residual: float, prediction: bytes | None) -> Trajectory:
    trajectory = Trajectory(index, 0, 8, steps=8, outcome=outcome, prediction=prediction)
    trajectory.recent.extend([residual] * 3)
    return trajectory


def request(reason: FinishReason, *paths: Trajectory, cut_at: int | None = None) -> Request:
    made = Request("r", Budget(), trajectories=list(paths), wave=list(paths), cut_at=cut_at)
    made.finish_reason = reason
    return made


def test_score_is_the_mean_of_the_last_three() -> None:
    assert score([9.0, 1.0, 2.0, 3.0]) == 2.0
    assert score([4.0, 2.0]) == 3.0
    assert score([]) == math.inf


def test_convergence_needs_three_residuals_and_a_tolerance() -> None:
    assert not has_converged([0.0, 0.0], 0.1)
    assert has_converged([0.0, 0.1, 0.2], 0.1 + 1e-12)
    assert not has_converged([0.1, 0.1, 0.2], 0.1)
    assert not has_converged([0.0, 0.0, 0.0], None)


@pytest.mark.parametrize(
    ("residual", "expected"), [(0.0, False), (math.nan, True), (math.inf, True)]
)
def test_divergence(residual: float, expected: bool) -> None:
    assert has_diverged(residual) is expected


def test_lowest_score_wins_and_the_first_of_equals() -> None:
    paths = [
        path(0, "exhausted", 0.3, b"a"),
        path(1, "exhausted", 0.1, b"b"),
        path(2, "exhausted", 0.1, b"c"),
    ]
    assert choose(request("exhausted", *paths), "residual") is paths[1]


def test_majority_then_lowest_score() -> None:
    paths = [
        path(0, "exhausted", 0.1, b"a"),
        path(1, "exhausted", 0.3, b"b"),
        path(2, "exhausted", 0.2, b"b"),
    ]
    asked = request("exhausted", *paths)
    chosen = choose(asked, "majority")
    assert chosen is paths[2]
    assert agreement(paths[2], asked.trajectories) == pytest.approx(2 / 3)
    assert choose(asked, "residual") is paths[0]


def test_a_diverged_path_is_never_chosen() -> None:
    lost = path(0, "diverged", 0.0, b"a")
    left = path(1, "exhausted", 0.9, b"b")
    assert choose(request("exhausted", lost, left), "residual") is left
    assert choose(request("diverged", lost), "residual") is None


def test_a_deadline_prefers_what_converged() -> None:
    running = path(0, "stopped", 0.01, b"a")
    done = path(1, "converged", 0.05, b"b")
    assert choose(request("deadline", running, done), "residual") is done
    assert choose(request("deadline", running), "residual") is running


def test_agreement_counts_finished_paths_only() -> None:
    chosen = path(0, "converged", 0.0, b"a")
    others = [path(1, "cut", 0.1, b"b"), path(2, "exhausted", 0.1, b"c")]
    assert agreement(chosen, [chosen, *others]) == 0.5

"""Halting rules: on scripted trajectories, and in the engine against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.engine import waves
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.halting import PATIENCE, Halt
from eqr_core.engine.randomness import start_states
from eqr_core.engine.trajectory import Request
from eqr_core.errors import BudgetError
from eqr_core.model.card import Card
from eqr_core.model.operator import Operator
from tests.engine.tiny import GRID, TASK, config, puzzles, weights

TOLERANCE = 0.1


def steps_until_converged(budget: Budget, made: list[tuple[float, bytes, float]]) -> int | None:
    """Outer steps of the first trajectory until it converges; None where it runs to its end."""
    request = Request("r", budget, TOLERANCE)
    waves.begin_wave(request)
    (trajectory,) = request.wave
    for residual, prediction, q in made:
        trajectory.q = q
        waves.record_step(request, trajectory, residual, prediction)
        if not trajectory.running:
            break
    return trajectory.steps if trajectory.outcome == "converged" else None


def run_of(flags: list[bool], patience: int) -> int | None:
    """The first place, from 1, at which `patience` flags in a row have been seen."""
    return next((n for n in range(patience, len(flags) + 1) if all(flags[n - patience : n])), None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.01, 0.5]), st.sampled_from([b"a", b"b"]), st.sampled_from([-1, 1])
    ),
    min_size=1,
    max_size=24,
)


@given(STEPS, st.sampled_from(["residual", "q", "unchanged"]), st.none() | st.integers(1, 8))
def test_a_rule_must_hold_so_many_steps_in_a_row(
    made: list[tuple[float, bytes, float]], halt: Halt, patience: int | None
) -> None:
    if patience is not None and patience > len(made):
        return
    budget = Budget(depth=len(made), breadth=1, halt=halt, patience=patience)
    scores = [
        sum(r for r, _, _ in made[n - 2 : n + 1]) / 3 if n > 1 else math.inf
        for n in range(len(made))
    ]
    flags = {
        "residual": [score <= TOLERANCE for score in scores],
        "q": [q > 0 for _, _, q in made],
        "unchanged": [n > 0 and made[n][1] == made[n - 1][1] for n in range(len(made))],
    }
    expected = run_of(flags[halt], patience or PATIENCE[halt])
    assert steps_until_converged(budget, made) == expected


def test_without_a_tolerance_the_other_rules_work() -> None:
    request = Request("r", Budget(depth=4, breadth=1, halt="unchanged", patience=2), None)
    waves.begin_wave(request)
    for _ in range(3):
        waves.record_step(request, request.wave[0], 0.9, b"a")
    assert request.wave[0].outcome == "converged"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"halt": "never"}, "halt", "'never' is not one of residual, q, unchanged"),
        ({"halt": "q", "tolerance": 0.1}, "tolerance", "it is for halt residual; halt is q"),
        ({"depth": 8, "patience": 9}, "patience", "9 is not between 1 and 8"),
        ({"patience": 0}, "patience", "0 is not between 1 and 64"),
        ({"patience": True}, "patience", "True is not a whole number"),
    ],
)
def test_a_budget_refuses_what_makes_no_sense(
    fields: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(BudgetError, match=message) as refused:
        Budget(**fields)
    assert refused.value.field == field


def tiny() -> dict[str, torch.Tensor]:
    """Weights whose halting output changes its sign on the way."""
    values = weights(config(), gain=1.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        values["q_head.weight"] = torch.randn_like(values["q_head.weight"])
    values["q_head.bias"] = torch.zeros_like(values["q_head.bias"])
    outputs = [q for seed in range(4) for _, q in outer_steps(values, seed, 8)]
    values["q_head.bias"] -= sum(outputs) / len(outputs)
    return values


@torch.inference_mode()
def outer_steps(
    loaded: dict[str, torch.Tensor], seed: int, depth: int
) -> list[tuple[list[int], float]]:
    """(prediction, halting output) after each step of a request's first trajectory."""
    operator = Operator(config(), TASK)
    operator.load_state_dict(loaded)
    e = operator.embed(torch.from_numpy(TASK.encode(GRID))[None])
    state = start_states(operator, [(seed, 0)])
    made = []
    for _ in range(depth):
        state = operator.outer_step(state, e)
        logits, q = operator.read(state)
        made.append((operator.predict(logits)[0].tolist(), float(q[0, 0])))
    return made


def expected_steps(loaded: dict[str, torch.Tensor], seed: int, budget: Budget) -> int:
    made = outer_steps(loaded, seed, budget.depth)
    if budget.halt == "q":
        flags = [q > 0 for _, q in made]
    else:
        flags = [n > 0 and made[n][0] == made[n - 1][0] for n in range(len(made))]
    return run_of(flags, budget.steps_in_a_row) or budget.depth


@pytest.mark.parametrize(("halt", "patience"), [("q", 1), ("q", 2), ("unchanged", 2)])
def test_the_engine_stops_where_a_plain_loop_does(halt: Halt, patience: int) -> None:
    loaded = tiny()
    budget = Budget(depth=12, breadth=1, halt=halt, patience=patience)
    engine = Engine.of([(loaded, Card("tiny", "sudoku", config(), ("4x4",)))], slots=4)
    answers = engine.solve(
        [SolveRequest(TASK, GRID, "tiny", budget, seed=seed) for seed in range(12)]
    )
    steps = [expected_steps(loaded, seed, budget) for seed in range(12)]
    assert [answer.iterations for answer in answers] == steps
    assert min(steps) < 12
    assert all(answer.converged for answer in answers if answer.iterations < 12)


def test_company_has_no_part_in_where_a_trajectory_halts() -> None:
    card = Card("tiny", "sudoku", config(), ("4x4",), tolerance=0.02)
    rules: list[tuple[Halt, int | None]] = [("q", 2), ("unchanged", 3), ("residual", None)]
    requests = [
        SolveRequest(
            TASK, grid, "tiny", Budget(depth=10, breadth=4, halt=halt, patience=patience), seed=n
        )
        for n, grid in enumerate(puzzles(6))
        for halt, patience in rules
    ]
    alone = [Engine.of([(tiny(), card)], slots=1).solve([request])[0] for request in requests]
    together = Engine.of([(tiny(), card)], slots=16).solve(requests)
    for one, other in zip(alone, together, strict=True):
        assert (one.grid, one.iterations, one.residual) == (
            other.grid,
            other.iterations,
            other.residual,
        )

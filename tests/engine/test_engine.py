from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Answer, Engine, SolveRequest
from eqr_core.engine.halting import score
from eqr_core.engine.randomness import initial_state, path_noise
from eqr_core.engine.stats import Tick
from eqr_core.errors import EqrError, GridError, ModelError, QueueFull
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator, residual
from eqr_core.tasks.base import Grid
from eqr_core.tasks.sudoku import Sudoku
from tests.engine import tiny

OPERATORS = {
    "units": tiny.config(),
    "units-hierarchical": tiny.config(states="hierarchical", cycles=2),
    "token": tiny.config("token", "hierarchical"),
    "attention": tiny.config("attention", "hierarchical", blocks=2),
    "trm": tiny.config("token", "hierarchical", initial="fixed", damping=0.0),
}
RESTLESS = 3.0
"""Gain at which random operators have many attractors, or none: then a rounding error grows."""
SOME_CONVERGE = {
    "units": 0.05,
    "units-hierarchical": 0.05,
    "token": 1.0,
    "attention": 1.0,
    "trm": 1.1,
}
"""Tolerances at which, with that gain, several waves are needed now and then."""


def ask(grid: Grid = tiny.GRID, budget: Budget | None = None, **fields: object) -> SolveRequest:
    request = SolveRequest(tiny.TASK, grid, "tiny", budget or Budget(depth=8, breadth=1))
    return replace(request, **fields)  # type: ignore[arg-type]


def solve(engine: Engine, request: SolveRequest) -> Answer:
    (answer,) = engine.solve([request])
    return answer


def run_out(engine: Engine, ticks: int = 1000) -> list[Answer]:
    answers: list[Answer] = []
    while engine.busy:
        answers.extend(engine.step())
        ticks -= 1
        assert ticks, "requests do not come to an end"
    return answers


def unrolled(
    config: OperatorConfig, grid: Grid, depth: int, seed: int, index: int, noise: float = 0.0
) -> tuple[Grid, list[float]]:
    """The plain loop: one trajectory, outer steps one after the other, nothing else."""
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config, gain=RESTLESS))
    shape = operator.state_shape
    with torch.no_grad():
        e = operator.embed(torch.from_numpy(tiny.TASK.encode(grid))[None])
        if config.initial == "fixed":
            state = operator.fixed_state(1)
        else:
            state = tuple(z[None] for z in initial_state(seed, index, shape, operator.state_count))
        residuals = []
        for step in range(1, depth + 1):
            draws = [
                path_noise(seed, index, step, i, shape, noise)[None]
                for i in range(config.cycles * operator.draws_per_cycle)
            ]
            new = operator.outer_step(state, e, draws.__getitem__ if noise else None)
            residuals.append(residual(new, state).item())
            state = new
        answer = operator.predict(operator.read(state)[0])[0]
    return tiny.TASK.decode(answer.numpy()), residuals


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_engine_is_a_plain_unrolled_loop(name: str, noise: float) -> None:
    config = OPERATORS[name]
    engine = tiny.engine(config, gain=RESTLESS, slots=5)
    budget = Budget(depth=7, breadth=6, stop="exhausted")
    answer = solve(engine, ask(budget=budget, seed=11, noise=noise, history=True))
    loops = [unrolled(config, tiny.GRID, 7, 11, index, noise) for index in range(6)]
    assert [t.grid for t in answer.trajectories] == [grid for grid, _ in loops]
    assert [list(t.history) for t in answer.trajectories] == [history for _, history in loops]
    scores = [score(history) for _, history in loops]
    assert answer.residual == min(scores)
    assert answer.grid == loops[scores.index(min(scores))][0]
    assert (answer.finish_reason, answer.nfe, answer.iterations) == ("exhausted", 42, 7)
    assert answer.layers == 7 * config.layers_per_step
    assert not answer.converged


def essence(answer: Answer) -> tuple[object, ...]:
    return (
        answer.grid,
        answer.residual,
        answer.iterations,
        answer.converged,
        answer.verified,
        answer.finish_reason,
        answer.started,
    )


@pytest.mark.parametrize(
    ("name", "stop"),
    [*((name, "converged") for name in OPERATORS), ("token", "verified"), ("units", "exhausted")],
)
def test_the_same_alone_and_among_63_others(name: str, stop: str) -> None:
    config = OPERATORS[name]
    tolerance = SOME_CONVERGE[name]
    budget = Budget(depth=8, breadth=4, tolerance=tolerance, stop=stop)  # type: ignore[arg-type]
    grids = tiny.puzzles(64)
    requests = [ask(g, budget, seed=i % 5, noise=0.02 * (i % 2)) for i, g in enumerate(grids)]
    together = tiny.engine(config, gain=RESTLESS, slots=64).solve(requests)
    for i in range(0, 64, 7):
        alone = solve(tiny.engine(config, gain=RESTLESS, slots=1 + i % 3), requests[i])
        assert essence(alone) == essence(together[i])


def test_the_same_with_and_without_wide_neighbours_that_take_slots_away() -> None:
    config = OPERATORS["token"]
    budget = Budget(depth=12, breadth=16, tolerance=0.95)
    request = ask(budget=budget, seed=5)
    alone = solve(tiny.engine(config, gain=RESTLESS, slots=16), request)
    assert alone.started > 1
    engine = tiny.engine(config, gain=RESTLESS, slots=4)
    wide = Budget(depth=9, breadth=20, stop="exhausted")
    name = engine.submit(request)
    answers: dict[str, Answer] = {}
    neighbours: dict[str, SolveRequest] = {}
    for i in range(60):
        if i % 12 == 0:
            neighbour = ask(tiny.puzzles(5)[i // 12], wide)
            neighbours[engine.submit(neighbour)] = neighbour
        answers.update({answer.id: answer for answer in engine.step()})
    answers.update({answer.id: answer for answer in run_out(engine)})
    assert essence(answers[name]) == essence(alone)
    for neighbour_id, neighbour in neighbours.items():
        alone = solve(tiny.engine(config, gain=RESTLESS), neighbour)
        assert answers[neighbour_id].trajectories == alone.trajectories


def test_rows_at_nine_by_nine_are_the_same_bits_in_company() -> None:
    task = Sudoku(box=(3, 3))
    config = tiny.config(hidden=16, updates=4)
    blank: Grid = tuple((0,) * 9 for _ in range(9))
    grids = [((i % 9 + 1, *blank[0][1:]), *blank[1:]) for i in range(10)]
    budget = Budget(depth=5, breadth=1, stop="exhausted")
    requests = [SolveRequest(task, g, "tiny", budget, seed=i) for i, g in enumerate(grids)]
    together = tiny.engine(config, task=task, gain=RESTLESS).solve(requests)
    for request, among in zip(requests, together, strict=True):
        alone = solve(tiny.engine(config, task=task, gain=RESTLESS), request)
        assert essence(alone) == essence(among)


def test_a_nan_trajectory_touches_no_neighbour() -> None:
    budget = Budget(depth=9, breadth=1)
    requests = [ask(g, budget, id=f"r{i}", history=True) for i, g in enumerate(tiny.puzzles(20))]
    quiet = tiny.engine(gain=RESTLESS, slots=32).solve(requests)
    engine = tiny.engine(gain=RESTLESS, slots=32)
    for request in requests:
        engine.submit(request)
    engine.step()
    lane = engine._lanes["tiny", "4x4"]
    victim = 13
    place = next(p for p in lane.scheduler._busy.values() if p.request.id == f"r{victim}")
    for rows in lane._pool.state:
        rows[place.slot] = math.nan
    answers = {answer.id: answer for answer in run_out(engine)}
    for i, request in enumerate(requests):
        answer = answers[request.id]
        if i == victim:
            assert answer.finish_reason == "diverged"
            assert answer.grid == request.grid
            assert (answer.residual, answer.converged, answer.verified) == (math.inf, False, False)
            assert [t.outcome for t in answer.trajectories] == ["diverged"]
            assert answer.nfe == 2
        else:
            assert answer.trajectories == quiet[i].trajectories
    again = solve(engine, replace(requests[victim], id=""))
    assert again.trajectories == quiet[victim].trajectories


def test_a_diverged_wave_is_followed_by_the_next() -> None:
    engine = tiny.engine(tolerance=0.3)
    engine.submit(ask(budget=Budget(depth=30, breadth=2)))
    engine.step()
    engine._lanes["tiny", "4x4"]._pool.state[0][0] = math.nan
    (answer,) = run_out(engine)
    assert [t.outcome for t in answer.trajectories] == ["diverged", "converged"]
    assert answer.finish_reason == "converged"


def test_cancelling_frees_the_slots_for_the_next_tick() -> None:
    engine = tiny.engine(slots=8)
    budget = Budget(depth=4096, breadth=64, stop="exhausted")
    wide = engine.submit(ask(budget=budget))
    engine.step()
    assert engine.stats.slots_busy == 8
    engine.cancel(wide)
    assert engine.stats.slots_busy == 0
    narrow = engine.submit(ask(budget=Budget(depth=1, breadth=8, stop="exhausted")))
    answers = {answer.id: answer for answer in engine.step()}
    assert answers[wide].finish_reason == "cancelled"
    assert answers[wide].nfe == 8
    assert {t.outcome for t in answers[wide].trajectories} == {"stopped"}
    assert answers[narrow].nfe == 8
    engine.cancel(wide)
    engine.cancel("nobody")
    assert not engine.busy


def test_a_deadline_returns_the_best_answer_so_far() -> None:
    engine = tiny.engine(gain=RESTLESS)
    budget = Budget(depth=4096, breadth=4, stop="exhausted", deadline_ms=3_600_000)
    name = engine.submit(ask(budget=budget))
    assert [answer for _ in range(3) for answer in engine.step()] == []
    record = engine._lanes["tiny", "4x4"].scheduler.find(name)
    assert record is not None
    assert record.deadline == pytest.approx(time.monotonic() + 3600, abs=600)
    record.deadline = time.monotonic()
    (answer,) = engine.step()
    assert (answer.finish_reason, answer.answered, answer.nfe) == ("deadline", True, 12)
    assert answer.residual == min(t.residual for t in answer.trajectories)
    assert {t.outcome for t in answer.trajectories} == {"stopped"}


def test_a_deadline_before_any_outer_step_leaves_no_answer() -> None:
    engine = tiny.engine()
    engine.submit(ask(budget=Budget(deadline_ms=1)), moment=time.monotonic() - 1.0)
    (answer,) = engine.step()
    assert (answer.finish_reason, answer.answered, answer.nfe) == ("deadline", False, 0)
    assert answer.grid == tiny.GRID


def test_a_card_without_tolerance_never_converges_unless_the_budget_names_one() -> None:
    engine = tiny.engine()
    budget = Budget(depth=200, breadth=1)
    assert solve(engine, ask(budget=budget)).finish_reason == "exhausted"
    named = solve(engine, ask(budget=replace(budget, tolerance=0.01)))
    assert (named.finish_reason, named.converged) == ("converged", True)
    assert named.residual <= 0.01
    own = solve(tiny.engine(tolerance=0.01), ask(budget=budget))
    assert essence(own) == essence(named)


def test_convergence_stops_at_the_first_wave_that_has_it() -> None:
    answer = solve(tiny.engine(tolerance=0.01), ask(budget=Budget(depth=64, breadth=16)))
    assert (answer.started, answer.finished_converged, answer.agreement) == (1, 1, 1.0)
    assert answer.nfe == answer.iterations < 64


def test_verified_goes_on_to_the_whole_breadth_when_nothing_verifies() -> None:
    budget = Budget(depth=30, breadth=6, tolerance=0.01, stop="verified")
    answer = solve(tiny.engine(), ask(budget=budget))
    assert (answer.finish_reason, answer.started, answer.verified) == ("exhausted", 6, False)
    assert answer.converged
    assert answer.residual == min(t.residual for t in answer.trajectories)


@pytest.mark.parametrize("stop", ["converged", "verified", "exhausted"])
@pytest.mark.parametrize("nfe", [1, 7, 50])
def test_nfe_is_a_limit(stop: str, nfe: int) -> None:
    budget = Budget(depth=16, breadth=9, nfe=nfe, stop=stop)  # type: ignore[arg-type]
    answer = solve(tiny.engine(gain=RESTLESS, slots=3), ask(budget=budget))
    assert 0 < answer.nfe <= nfe
    assert answer.nfe == sum(t.iterations for t in answer.trajectories)


def test_a_full_grid_is_its_own_answer() -> None:
    engine = tiny.engine()
    request_id = engine.submit(ask(tiny.FULL))
    (answer,) = engine.step()
    assert answer.id == request_id
    assert (answer.grid, answer.converged, answer.verified) == (tiny.FULL, True, True)
    assert (answer.finish_reason, answer.iterations, answer.nfe) == ("converged", 0, 0)
    assert answer.answered
    assert not engine.busy


def test_majority_takes_the_most_frequent_grid() -> None:
    budget = Budget(depth=2, breadth=24, stop="exhausted")
    answer = solve(tiny.engine(gain=RESTLESS), ask(budget=budget, selection="majority"))
    votes = [t.grid for t in answer.trajectories]
    assert votes.count(answer.grid) == max(votes.count(grid) for grid in votes)
    assert answer.agreement == votes.count(answer.grid) / 24


def test_bad_grids_and_models_are_refused() -> None:
    engine = tiny.engine()
    with pytest.raises(GridError, match="4x4"):
        engine.submit(ask(((1, 2), (2, 1))))
    with pytest.raises(GridError, match="row 1"):
        engine.submit(ask(((1, 1, 0, 0), *tiny.GRID[1:])))
    with pytest.raises(GridError, match="7"):
        engine.submit(ask(((7, 0, 0, 0), *tiny.GRID[1:])))
    with pytest.raises(ModelError, match="there is tiny"):
        engine.submit(ask(model="huge"))
    with pytest.raises(ModelError, match="9x9"):
        engine.choose_model(Sudoku(box=(3, 3)))
    with pytest.raises(ModelError, match="9x9"):
        engine.choose_model(Sudoku(box=(3, 3)), "tiny")
    with pytest.raises(ModelError, match="at least one"):
        Engine([])
    assert not engine.busy


def test_the_most_specialised_model_is_chosen() -> None:
    config = tiny.config()
    values = tiny.weights(config)
    cards = [
        Card("broad", "sudoku", config, ("4x4", "9x9")),
        Card("narrow", "sudoku", config, ("4x4",)),
        Card("later", "sudoku", config, ("4x4",)),
    ]
    engine = Engine.of([(values, card) for card in cards])
    assert engine.choose_model(tiny.TASK) == "narrow"
    assert engine.choose_model(Sudoku(box=(3, 3))) == "broad"
    assert engine.choose_model(tiny.TASK, "later") == "later"
    with pytest.raises(ModelError, match="two checkpoints"):
        Engine.of([(values, cards[0]), (values, cards[0])])


def test_the_queue_is_bounded() -> None:
    engine = tiny.engine(slots=1, queue=3)
    for _ in range(4):
        engine.submit(ask())
    with pytest.raises(QueueFull, match="4"):
        engine.submit(ask())
    for _ in range(8):
        engine.step()
    engine.submit(ask())
    assert len(run_out(engine)) == 4


def test_an_id_can_be_in_use_only_once() -> None:
    engine = tiny.engine()
    assert engine.submit(ask(id="mine")) == "mine"
    with pytest.raises(EqrError, match="mine"):
        engine.submit(ask(id="mine"))


def test_two_full_grids_of_one_id_are_two_requests() -> None:
    engine = tiny.engine()
    engine.submit(ask(tiny.FULL, id="mine"))
    for grid in (tiny.FULL, tiny.GRID):
        with pytest.raises(EqrError, match="mine"):
            engine.submit(ask(grid, id="mine"))
    assert [answer.id for answer in engine.step()] == ["mine"]
    engine.submit(ask(id="mine"))


def test_solve_refuses_an_id_that_stands_twice() -> None:
    engine = tiny.engine(slots=1)
    with pytest.raises(EqrError, match="'mine' stands more than once"):
        engine.solve([ask(id="mine"), ask(), ask(id="mine")])
    assert not engine.busy


def test_when_solve_fails_its_own_requests_end_and_others_go_on() -> None:
    engine = tiny.engine(slots=2)
    engine.submit(ask(id="stranger"))
    engine.submit(ask(tiny.FULL, id="full"))
    wrong = ask(((1, 1, 0, 0), *tiny.GRID[1:]))
    with pytest.raises(GridError, match="row 1"):
        engine.solve([ask(budget=Budget(depth=5, breadth=1)), ask(id="late"), wrong])
    assert engine.stats.requests_active == 1
    assert [answer.id for answer in run_out(engine)] == ["full", "stranger"]
    assert solve(engine, ask(id="late")).finish_reason == "exhausted"


def test_a_tick_ends_early_at_a_deadline_and_the_others_lose_nothing() -> None:
    task = Sudoku(box=(3, 3))
    config = tiny.config(hidden=64)
    blank: Grid = tuple((0,) * 9 for _ in range(9))
    budget = Budget(depth=3, breadth=1, stop="exhausted")
    others = [SolveRequest(task, blank, "tiny", budget, seed=i, id=f"{i}") for i in range(32)]
    engine = tiny.engine(config, task=task)
    hurried = SolveRequest(task, blank, "tiny", replace(budget, deadline_ms=3_600_000))
    name = engine.submit(hurried)
    for other in others:
        engine.submit(other)
    record = engine._lanes["tiny", "9x9"].scheduler.find(name)
    assert record is not None
    record.deadline = time.monotonic() + 1e-3
    assert engine.step() == []
    assert 0 < engine.stats.outer_steps < 33
    answers = {answer.id: answer for answer in run_out(engine)}
    assert (answers[name].finish_reason, answers[name].nfe) == ("deadline", 1)
    alone = tiny.engine(config, task=task).solve(others)
    assert [essence(answers[a.id]) for a in alone] == [essence(a) for a in alone]


def test_a_card_that_does_not_fit_its_sizes_is_refused_when_loaded() -> None:
    small = tiny.config("attention", vocabulary=3)
    kinds = tiny.config(constraint_kinds=1)
    fixed = tiny.config("token")
    for config, size, message in [
        (small, "4x4", "unfit: the model has a vocabulary of 3"),
        (kinds, "4x4", "unfit: the model has constraint_kinds 1"),
        (fixed, "9x9", "unfit: the model takes grids of 16 cells"),
        (fixed, "5x5", "unfit: there is no 5x5 Sudoku"),
    ]:
        with pytest.raises(ModelError, match=message):
            Engine.of([({}, Card("unfit", "sudoku", config, (size,)))])


def test_solve_many_more_than_slots_and_queue_keeps_the_order() -> None:
    grids = (*tiny.puzzles(40), tiny.FULL)
    requests = [ask(g, Budget(depth=3 + i % 5, breadth=1)) for i, g in enumerate(grids)]
    engine = tiny.engine(gain=RESTLESS, slots=3, queue=2)
    stranger = engine.submit(ask(id="stranger"))
    answers = engine.solve(requests)
    single = tiny.engine(gain=RESTLESS)
    assert [essence(a) for a in answers] == [essence(solve(single, r)) for r in requests]
    assert len({answer.text for answer in answers}) > 10
    assert stranger in {answer.id for answer in run_out(engine)}


def test_stats_and_observer_count_what_happened() -> None:
    ticks: list[Tick] = []
    engine = tiny.engine(slots=4, observer=ticks.append)
    engine.submit(ask(budget=Budget(depth=5, breadth=6, stop="exhausted")))
    engine.step()
    assert (engine.stats.slots, engine.stats.slots_busy) == (4, 4)
    run_out(engine)
    stats = engine.stats
    assert stats.outer_steps == 30 == sum(tick.outer_steps for tick in ticks)
    assert stats.ticks == len(ticks) == 10
    assert stats.tick_seconds == pytest.approx(sum(tick.seconds for tick in ticks))
    assert stats.trajectories == {"exhausted": 6}
    assert (stats.slots_busy, stats.requests_waiting, stats.requests_active) == (0, 0, 0)


def test_engine_from_a_checkpoint_folder(tmp_path: object) -> None:
    folder = tmp_path / "mine"  # type: ignore[operator]
    config = tiny.config()
    save_checkpoint(
        folder, tiny.weights(config), Card("mine", "sudoku", config, ("4x4",), tolerance=0.01)
    )
    engine = Engine([folder])
    assert list(engine.models) == ["mine"]
    answer = solve(engine, ask(model="mine", budget=Budget(depth=64, breadth=4)))
    reference = solve(tiny.engine(tolerance=0.01), ask(budget=Budget(depth=64, breadth=4)))
    assert essence(answer) == essence(reference)

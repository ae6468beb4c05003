"""The number of solvers: what a solver reports, what follows from it, what Serve is told."""

from __future__ import annotations

import inspect
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from ray.serve.config import AutoscalingContext

from eqr_core.engine.budget import Budget
from eqr_core.engine.stats import Stats
from service import load, scaling
from service.app import application, build, number_of_ingresses, solver_cpus
from service.load import Load
from service.problems import Refusal
from service.scaling import BacklogPolicy
from service.settings import Settings, SettingsError

BUDGET = Budget(depth=64, breadth=16)

CONTROLLER = """
import sys
from ray import cloudpickle
policy = cloudpickle.load(sys.stdin.buffer)
print(policy(10.0)._wanted(1, [35_000], [1.0], [1000.0]), "service.scaling" in sys.modules)
"""


def wanted(running: int, *reports: dict[str, float], seconds: float = 10.0) -> float:
    """What the policy wants, from Serve's own context."""
    fields: dict[str, Any] = dict.fromkeys(inspect.signature(AutoscalingContext).parameters)
    fields["current_num_replicas"] = running
    fields["aggregated_metrics"] = {
        name: {index: report[name] for index, report in enumerate(reports)}
        for name in (("nfe", "busy", "nfe_per_second") if reports else ())
    }
    context = AutoscalingContext(**fields)
    count, state = BacklogPolicy(seconds)(context)
    assert state == {}
    return count


def report(nfe: float, busy: float, speed: float = 1000.0) -> dict[str, float]:
    return {"nfe": nfe, "busy": busy, "nfe_per_second": speed}


def test_work_in_hand_starts_as_many_solvers_as_finish_it_in_time() -> None:
    assert wanted(1, report(10_000, 1.0)) == 1
    assert wanted(1, report(35_000, 1.0)) == 3.5
    assert wanted(2, report(35_000, 1.0), report(25_000, 1.0)) == 6
    assert wanted(1, report(35_000, 1.0), seconds=20) == 1.75


def test_busy_solvers_stay_and_idle_ones_go() -> None:
    assert wanted(2, report(10, 1.0), report(10, 1.0)) == 2
    assert wanted(2, report(10, 0.5), report(10, 0.9)) == pytest.approx(1.75)
    assert wanted(2, report(10, 0.4), report(10, 0.4)) == pytest.approx(1.0)
    assert wanted(3, report(0, 0.0), report(0, 0.0), report(0, 0.0)) == 0


def test_what_is_not_known_changes_nothing() -> None:
    assert wanted(1) == 1
    assert wanted(2, report(5, 0.0, speed=0.0)) == 2
    # A solver that has not run yet has no speed, and does not lower that of the others.
    assert wanted(2, report(40_000, 1.0), report(0, 0.0, speed=0.0)) == 4


def test_the_policy_reaches_a_controller_that_has_no_service() -> None:
    source = inspect.getsource(scaling)
    assert "import service" not in source
    assert "from service" not in source
    scaled = deployments(max_replicas=2)["Solver"]._deployment_config.autoscaling_config
    done = subprocess.run(
        [sys.executable, "-I", "-c", CONTROLLER],
        input=scaled.policy.get_serialized_policy_def(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["3.5", "False"]


def test_a_solver_reports_what_it_has_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(load, "monotonic", lambda: now)
    stats = Stats()
    one = Load(stats, slots=16)
    with one.taken(BUDGET), one.taken(replace(BUDGET, nfe=76)):
        now = 10.0
        stats = Stats(outer_steps=5000, tick_seconds=5.0)
        assert one.report(stats) == {"nfe": 1100, "busy": 0.5, "nfe_per_second": 1000}
        for _ in range(100):
            one.learn(BUDGET, 256)
        assert one.report(stats)["nfe"] == pytest.approx(275, rel=1e-3)
    now = 20.0
    # What nothing has changed since is still the last thing known.
    assert one.report(stats) == {"nfe": 0, "busy": 0.0, "nfe_per_second": 1000}


def test_a_request_that_fails_is_no_longer_in_hand() -> None:
    one = Load(Stats(), slots=16)
    with pytest.raises(ValueError, match="no"), one.taken(BUDGET):
        raise ValueError("no")
    assert one.report(Stats())["nfe"] == 0


def test_a_request_that_would_wait_too_long_is_refused_at_once() -> None:
    one = Load(Stats(), slots=8)
    fast = Stats(outer_steps=1000, tick_seconds=1.0)

    def check(end: float, left_seconds: float, priority: int = 0) -> None:
        one.check_room(fast, end, left_seconds, priority)

    with one.taken(BUDGET, end=100.0), one.taken(BUDGET, end=300.0):
        check(200.0, 0.1)  # nothing is known of what requests take
        one.learn(BUDGET, 512)  # so each takes half a second
        check(99.0, 0.1)  # it goes before both
        check(200.0, 1.03)
        with pytest.raises(Refusal) as refused:
            check(200.0, 1.01)
        assert refused.value.code == "queue_full"
        assert refused.value.headers["Retry-After"] == "1"
        assert refused.value.holds_seconds == pytest.approx(0.0101)
        check(300.0, 2.06)
        with pytest.raises(Refusal, match=r"take 1\.0 s more; this one has 2\.0 s"):
            check(300.0, 2.04)
        check(300.0, 0.1, priority=-1)
        one.learn(BUDGET, 0)  # a full grid tells nothing
        one.learn(BUDGET, 8, cut=True)  # nor does one that hardly began
        with pytest.raises(Refusal):
            check(300.0, 2.04)
    with one.taken(BUDGET, end=100.0):
        check(200.0, 0.1)  # a slot is free


def test_one_fast_moment_does_not_make_a_fast_solver() -> None:
    one = Load(Stats(), slots=1)
    with one.taken(BUDGET, end=0.0):
        one.learn(BUDGET, BUDGET.depth * BUDGET.breadth)

        def waits(steps: int, seconds: float) -> float:
            """Seconds that a request would wait after so many steps in so many seconds."""
            with pytest.raises(Refusal) as refused:
                one.check_room(Stats(outer_steps=steps, tick_seconds=seconds), 1.0, 0.0, 0)
            return float(refused.value.detail.split()[5])

        assert waits(10_000, 10.0) == 1.0
        assert waits(10_400, 10.1) == 1.0
        for second in range(1, 30):
            last = waits(10_400 + 500 * second, 10.1 + second)
        assert last == 2.0


def test_what_ran_alone_says_nothing_of_the_speed_of_many() -> None:
    one = Load(Stats(), slots=16)
    an_hour = Stats(outer_steps=10**6, tick_seconds=3600.0)
    a_second = Stats(outer_steps=10**6 + 5000, tick_seconds=3601.0)
    with one.taken(BUDGET, end=0.0):
        one.learn(BUDGET, 1000)
        one.check_room(an_hour, 1.0, 0.1, 0)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(one.taken(BUDGET, end=0.0))
        one.check_room(an_hour, 1.0, 0.1, 0)
        one.check_room(a_second, 1.0, 2.0, 0)  # four thousand go first
        with pytest.raises(Refusal, match=r"take 0\.8 s more"):
            one.check_room(a_second, 1.0, 1.5, 0)


def test_answers_that_all_are_cut_tell_that_there_is_too_much() -> None:
    one = Load(Stats(), slots=1)
    with one.taken(BUDGET, end=100.0):
        one.check_room(Stats(outer_steps=1000, tick_seconds=1.0), 200.0, 1.0, 0)
        one.learn(BUDGET, 3, cut=True)
        with pytest.raises(Refusal):
            one.check_room(Stats(outer_steps=2000, tick_seconds=2.0), 200.0, 1.0, 0)


def deployments(**fields: Any) -> dict[str, Any]:
    from ray.serve._private.build_app import build_app

    built = build_app(build(Settings(**fields)), name="any")
    return {one.name: one for one in built.deployments}


def test_the_number_of_solvers_is_fixed_unless_there_may_be_more() -> None:
    fixed = deployments(replicas=3, cpus=4)["Solver"]._deployment_config
    assert (fixed.num_replicas, fixed.autoscaling_config) == (3, None)
    scaled = deployments(replicas=2, max_replicas=5, backlog_seconds=7, idle_seconds=60, cpus=4)
    config = scaled["Solver"]._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (2, 5)
    assert config.downscale_delay_s == 60
    assert config.policy.policy_kwargs == {"seconds": 7}


def test_all_solvers_and_ingresses_fit_the_cpus() -> None:
    for cpus in (1, 2, 4, 16):
        for most in (1, 2, 3, 8):
            settings = Settings(cpus=cpus, max_replicas=most)
            asked = most * solver_cpus(settings) + 0.1 * number_of_ingresses(settings)
            assert asked < cpus
            assert settings.solver_threads >= 1
    assert number_of_ingresses(Settings(cpus=2)) == 1
    assert number_of_ingresses(Settings(cpus=4)) == 2
    assert number_of_ingresses(Settings(cpus=4, ingresses=1)) == 1
    assert solver_cpus(Settings(cpus=2, solver_cpus=3.5)) == 3.5
    assert Settings(cpus=2, solver_cpus=3.5).solver_threads == 3


def test_fewer_at_most_than_at_least_is_refused() -> None:
    with pytest.raises(ValueError, match="max_replicas is 2; replicas is 3"):
        Settings(replicas=3, max_replicas=2)


def test_a_serve_config_gives_settings_as_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQR_REPLICAS", "2")
    monkeypatch.setenv("EQR_SLOTS", "8")
    from ray.serve._private.build_app import build_app

    built = build_app(application({"slots": 16, "drain_seconds": 45}), name="any")
    (solver,) = (one for one in built.deployments if one.name == "Solver")
    assert solver._deployment_config.num_replicas == 2
    assert solver._deployment_config.graceful_shutdown_timeout_s == 45
    assert solver.init_args[0].slots == 16
    with pytest.raises(SettingsError, match="slot"):
        application({"slot": 16})

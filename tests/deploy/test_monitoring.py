"""Alert rules and dashboard: their PromQL parses, and speaks of metrics that the service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from typing import Any, get_args

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.trajectory import FinishReason
from eqr_core.tasks import task_at
from service.codes import TITLES
from service.metrics import IngressMetrics, SolverMetrics, exposition, store_metrics
from tests.checkpoints import save_random
from tests.deploy.tools import DEPLOY, ROOT

PROMETHEUS = DEPLOY / "prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
(DASHBOARD,) = (json.loads(path.read_text()) for path in DEPLOY.glob("grafana/dashboards/*.json"))
PANELS: list[dict[str, Any]] = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
OF_PROMETHEUS = {"up": {"job", "instance"}}
VALUES = {
    "code": set(TITLES),
    "finish_reason": set(get_args(FinishReason)),
    "verified": {"true", "false"},
    "state": {"queued", "running"},
}


def queries() -> dict[str, str]:
    """Every query of the rules and of the dashboard, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in PANELS:
        for target in panel["targets"]:
            # Grafana puts a span of time and a pattern here.
            text = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            found[f"{panel['title']} {target['refId']}"] = text
    return found


QUERIES = queries()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Labels by sample of what the service shows after a solve, a refusal and a job."""
    folder = tmp_path_factory.mktemp("model") / "random"
    save_random(folder)
    engine = Engine([str(folder)], slots=2, queue=2)
    grid = ((1, 0, 0, 0), (4, 0, 0, 0), (2, 0, 0, 3), (0, 0, 0, 0))
    # Any residual will do: random weights need not come to rest.
    budget = Budget(depth=8, breadth=1, tolerance=1.0)
    request = SolveRequest(task_at("sudoku", 4, 4), grid, "random", budget)
    (answer,) = engine.solve([request])
    assert answer.converged
    solver, ingress = SolverMetrics(), IngressMetrics()
    solver.observe(answer)
    solver.count_shard("lost")
    ingress.reject("queue_full")
    parts = [
        ("solver", solver.collect(engine.stats)),
        ("ingress", ingress.collect()),
        ("store", store_metrics({"queued": 1, "running": 0})),
    ]
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition(parts).decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return {**labels, **OF_PROMETHEUS}


def nodes(root: Any) -> Iterator[Any]:
    """All parts of a parsed query."""
    yield root
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        below = getattr(root, name, None)
        for one in below if isinstance(below, list | tuple) else [below]:
            if one is not None:
                yield from nodes(one)


def selectors(query: str) -> list[Any]:
    found = nodes(promql_parser.parse(query))
    return [one for one in found if isinstance(one, promql_parser.VectorSelector)]


@pytest.mark.parametrize("place", QUERIES)
def test_a_query_asks_for_what_there_is(place: str, known: dict[str, set[str]]) -> None:
    found = selectors(QUERIES[place])
    assert found
    for selector in found:
        assert selector.name in known, f"there is no metric {selector.name}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name], f"{selector.name} has no {matcher.name}"
            if matcher.name in VALUES:
                assert matcher.value in VALUES[matcher.name]
    labels = set.union(*(known[selector.name] for selector in found))
    for node in nodes(promql_parser.parse(QUERIES[place])):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels


def test_the_dashboard_shows_all_that_is_counted(known: dict[str, set[str]]) -> None:
    shown = {
        selector.name.removesuffix("_bucket")
        for place, query in QUERIES.items()
        if place not in {rule["alert"] for rule in RULES}
        for selector in selectors(query)
    }
    assert shown == {re.sub(r"_(bucket|sum|count)$", "", name) for name in known} - {"up"}


def test_the_panels_use_the_provisioned_source_and_do_not_overlap() -> None:
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    named = {"type": source["type"], "uid": source["uid"]}
    for panel in PANELS:
        assert panel["datasource"] == named
        assert panel["description"]
        assert all(target["datasource"] == named for target in panel["targets"])
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for one, other in combinations([panel["gridPos"] for panel in every], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


def test_the_runbook_has_every_alert_and_no_other() -> None:
    runbook = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"\bEqr[A-Z]\w+", runbook)) == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_configuration_and_rules() -> None:
    for check in (["config", "prometheus.yml"], ["rules", "rules.yml"]):
        done = subprocess.run(
            ["promtool", "check", *check], cwd=PROMETHEUS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

"""deploy/kuberay/train-job.yaml, as far as it can be checked without a cluster."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import typer

from eqr_core.training.recipe import load_recipe
from eqr_core.training.team import Team
from service.cli import app
from tests.deploy.kuberay import (
    CLUSTER,
    COUNT,
    RESOURCE_NAME,
    TEXT,
    check_plain,
    check_pods,
    documents,
    groups,
    pinned_ray,
    record,
)
from tests.deploy.tools import ROOT

DOCUMENTS = documents("train-job.yaml")

RAY_JOB = record(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": RESOURCE_NAME,
        "spec": record(
            {
                "entrypoint": TEXT,
                "rayClusterSpec": CLUSTER,
            },
            submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
            backoffLimit=COUNT,
            activeDeadlineSeconds={"type": "integer", "minimum": 1},
            shutdownAfterJobFinishes={"type": "boolean"},
            ttlSecondsAfterFinished=COUNT,
        ),
    }
)
"""Fields of KubeRay's RayJob v1 that the manifest uses, as its API reference types them."""


def job() -> Any:
    (found,) = (one for one in DOCUMENTS if one["kind"] == "RayJob")
    return copy.deepcopy(found)


def pods() -> list[dict[str, Any]]:
    return groups(job()["spec"]["rayClusterSpec"])


def words() -> list[str]:
    return shlex.split(job()["spec"]["entrypoint"])


def option(name: str) -> str:
    return words()[words().index(name) + 1]


def test_the_job_has_the_fields_of_a_ray_job_and_no_others() -> None:
    jsonschema.validate(job(), RAY_JOB)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(backofLimit=2),
        lambda spec: spec.update(ttlSecondsAfterFinished="600"),
        lambda spec: spec.pop("entrypoint"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="4"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update(
            {"num-cpus": 0}
        ),
    ],
)
def test_the_schema_refuses_what_kuberay_would(spoil: Callable[[Any], Any]) -> None:
    spoilt = job()
    spoil(spoilt["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, RAY_JOB)


def test_claims_and_pods_are_valid_for_kubernetes() -> None:
    check_plain(DOCUMENTS)
    check_pods(job()["spec"]["rayClusterSpec"])


def test_every_pod_has_the_image_and_the_claimed_volume() -> None:
    (claim,) = (one for one in DOCUMENTS if one["kind"] == "PersistentVolumeClaim")
    for group in pods():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == pods()[0]["template"]["spec"]["containers"][0]["image"]
        assert pod["volumes"] == [
            {
                "name": "training",
                "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
            }
        ]
        (mount,) = container["volumeMounts"]
        assert mount == {"name": "training", "mountPath": "/training"}
    for name in ("--data", "--out"):
        assert option(name).startswith("/training/")


def test_the_entrypoint_is_a_command_that_the_cluster_can_run() -> None:
    assert words()[:2] == ["eqr", "train"]
    command: Any = typer.main.get_command(app)
    given = command.commands["train"].make_context("train", words()[2:]).params
    assert given["ray"]
    assert given["gpus"]
    workers = pods()[1:]
    gpus = sum(
        group["replicas"]
        * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for group in workers
    )
    assert given["workers"] == gpus
    assert all(group["minReplicas"] == group["replicas"] for group in workers)
    for mix in load_recipe(given["recipe"]).puzzles:
        Team(0, given["workers"]).rows(mix.batch)


def test_ray_is_the_pinned_one() -> None:
    assert job()["spec"]["rayClusterSpec"]["rayVersion"] == pinned_ray(ROOT)

"""Fields of KubeRay's v1 kinds that the manifests use, as its API reference types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.tools import DEPLOY

KUBERNETES = "1.34"

COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
FLAG = {"type": "boolean"}
START_PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}
# The pods in it are checked by Kubernetes' own schema.
POD = {"type": "object"}


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """A JSON object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


RESOURCE_NAME = record({"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,40})$"}})
CREDENTIAL = record(
    {"valueFrom": record({"secretKeyRef": record({"name": TEXT, "key": TEXT})})},
)
WORKERS = record(
    {"groupName": TEXT, "replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT,
     "template": POD},
    rayStartParams=START_PARAMS,
)  # fmt: skip
CLUSTER = record(
    {
        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "headGroupSpec": record({"template": POD}, rayStartParams=START_PARAMS),
        "workerGroupSpecs": {"type": "array", "items": WORKERS, "minItems": 1},
    },
    authOptions=record({"mode": {"enum": ["disabled", "token"]}}),
    gcsFaultToleranceOptions=record(
        {"redisAddress": TEXT}, redisPassword=CREDENTIAL, externalStorageNamespace=TEXT
    ),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=record(
        {},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=COUNT,
        resources={"type": "object"},
    ),
)


def documents(name: str) -> list[dict[str, Any]]:
    """The manifests in a file of deploy/kuberay."""
    return list(yaml.safe_load_all((DEPLOY / "kuberay" / name).read_text()))


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's group, then the workers'."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check_pods(cluster: dict[str, Any]) -> None:
    """Raise unless Kubernetes would take the pods of `cluster`."""
    for group in groups(cluster):
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {"name": "pod", **group["template"].get("metadata", {})}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def check_plain(found: list[dict[str, Any]]) -> None:
    """Raise unless Kubernetes would take those that are not KubeRay's."""
    for one in found:
        if not one["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def pinned_ray(root: Path) -> str:
    """The version of Ray in constraints.txt."""
    (pin,) = (
        line.removeprefix("ray==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )
    return pin

"""deploy/kuberay/service.yaml and store.yaml, as far as they can be checked without a cluster."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from service import app
from service.local import front_path, serve_variables
from service.settings import PREFIX, Settings, read_settings
from tests.deploy.kuberay import (
    CLUSTER,
    COUNT,
    FLAG,
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

DOCUMENTS = documents("service.yaml")
STORE = documents("store.yaml")
RAY_SERVICE = record(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": RESOURCE_NAME,
        "spec": record(
            {"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER},
            upgradeStrategy=record({"type": {"enum": ["NewCluster", "None"]}}),
            rayClusterDeletionDelaySeconds=COUNT,
            excludeHeadPodFromServeSvc=FLAG,
        ),
    }
)


def service() -> Any:
    return copy.deepcopy(one_of(DOCUMENTS, "RayService"))


def one_of(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (one,) = (one for one in found if one["kind"] == kind)
    return one


def cluster() -> dict[str, Any]:
    found: dict[str, Any] = service()["spec"]["rayClusterConfig"]
    return found


def containers() -> list[dict[str, Any]]:
    return [one for group in groups(cluster()) for one in group["template"]["spec"]["containers"]]


def serve_config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(service()["spec"]["serveConfigV2"])
    return found


def arguments() -> dict[str, Any]:
    (application,) = serve_config()["applications"]
    found: dict[str, Any] = application["args"]
    return found


def test_the_service_has_the_fields_of_a_ray_service_and_no_others() -> None:
    jsonschema.validate(service(), RAY_SERVICE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(serveConfig="applications: []"),
        lambda spec: spec.pop("rayClusterConfig"),
        lambda spec: spec["upgradeStrategy"].update(type="Rolling"),
        lambda spec: spec["rayClusterConfig"]["gcsFaultToleranceOptions"].pop("redisAddress"),
        lambda spec: spec["rayClusterConfig"]["autoscalerOptions"].update(idleTimeoutSeconds="5"),
    ],
)
def test_the_schema_refuses_what_kuberay_would(spoil: Callable[[Any], Any]) -> None:
    spoilt = service()
    spoil(spoilt["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, RAY_SERVICE)


def test_everything_else_is_valid_for_kubernetes() -> None:
    check_plain(DOCUMENTS)
    check_plain(STORE)
    check_pods(cluster())


def test_serve_takes_its_config_and_the_settings_in_it() -> None:
    config = ServeDeploySchema.model_validate(serve_config())
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert module == app.__name__
    assert getattr(app, name) is app.application
    defaults = Settings()
    assert (config.http_options.port, config.grpc_options.port) == (
        defaults.port,
        defaults.grpc_port,
    )
    assert config.grpc_options.grpc_servicer_functions == ["service.proxy.add_services"]
    settings = read_settings(**arguments())
    assert settings.most_replicas > settings.replicas >= 2


def test_a_worker_has_room_for_a_solver_and_an_ingress() -> None:
    settings = read_settings(**arguments())
    (workers,) = cluster()["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert app.solver_cpus(settings) + app.INGRESS_CPUS + settings.fanout_cpus <= int(
        container["resources"]["requests"]["cpu"]
    )
    assert workers["minReplicas"] >= settings.replicas
    assert workers["maxReplicas"] >= settings.most_replicas


def test_every_pod_has_what_eqr_serve_gives_on_one_machine() -> None:
    fields = {PREFIX + name.upper() for name in Settings.model_fields}
    for container in containers():
        given = {one["name"]: one.get("value") for one in container["env"]}
        wanted = serve_variables()
        assert {name: given.get(name) for name in wanted} == wanted
        front = given["RAY_SERVE_HAPROXY_BINARY_PATH"]
        assert f"COPY --from=build {Path(front).parents[1]} " in (ROOT / "Dockerfile").read_text()
        assert Path(front).name == Path(front_path()).name
        assert {name for name in given if name.startswith(PREFIX)} <= fields
        assert container["image"] == containers()[0]["image"]


def test_store_and_gcs_use_the_same_server_and_not_the_same_database() -> None:
    host = one_of(STORE, "Service")["metadata"]["name"]
    assert cluster()["gcsFaultToleranceOptions"]["redisAddress"] == f"redis://{host}:6379"
    secret = cluster()["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]
    (valkey,) = one_of(STORE, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    for container in [*containers(), valkey]:
        variables = {one["name"]: one for one in container["env"]}
        assert variables["STORE_PASSWORD"]["valueFrom"] == secret
        if container is not valkey:
            url = variables["EQR_STORE_URL"]["value"]
            assert url == f"redis://:$(STORE_PASSWORD)@{host}:6379/1"
            # Kubernetes puts in what stands before, and leaves the rest as it is.
            names = list(variables)
            assert names.index("STORE_PASSWORD") < names.index("EQR_STORE_URL")
    options = dict(zip(valkey["args"][1::2], valkey["args"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"].startswith("volatile-")


def test_nothing_is_cut_off_when_clusters_and_pods_are_replaced() -> None:
    settings = read_settings(**arguments())
    longest = max(settings.deadline_ms / 1e3, settings.drain_seconds)
    assert service()["spec"]["rayClusterDeletionDelaySeconds"] > longest
    for group in cluster()["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"][-1]
        slept = re.match(r"sleep (\d+); ray stop", command)
        assert slept is not None
        assert pod["terminationGracePeriodSeconds"] > int(slept[1]) > longest


def test_selectors_find_the_pods_and_ports_exist() -> None:
    for group in groups(cluster()):
        assert group["template"]["metadata"]["labels"] == {"app": "eqr"}
    ports = {port["name"] for one in containers() for port in one["ports"]}
    assert one_of(DOCUMENTS, "Service")["spec"]["selector"]["app"] == "eqr"
    (grpc,) = one_of(DOCUMENTS, "Service")["spec"]["ports"]
    assert grpc["targetPort"] in ports
    (_, public) = one_of(DOCUMENTS, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in public["ports"]} == {"serve", "grpc"} <= ports


def test_no_pod_runs_as_root_or_gains_privileges() -> None:
    pods = [group["template"]["spec"] for group in groups(cluster())]
    pods.append(one_of(STORE, "StatefulSet")["spec"]["template"]["spec"])
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_ray_is_the_pinned_one() -> None:
    assert cluster()["rayVersion"] == pinned_ray(ROOT)

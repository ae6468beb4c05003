"""docker-compose.yml: taken by compose, safe as it stands, and in accord with what it starts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings
from tests.deploy.tools import DEPLOY, ROOT, tool


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The file as compose understands it."""
    done = subprocess.run(
        [tool("docker-compose"), "config", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def mounts(service: dict[str, Any]) -> dict[str, str]:
    return {one["target"]: one["source"] for one in service["volumes"] if one["type"] == "bind"}


def test_ports_are_open_to_this_machine_alone(composed: dict[str, Any]) -> None:
    ports = [port for one in composed["services"].values() for port in one.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_have_versions_and_privileges_are_not_gained(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        assert re.search(r":v?\d", service["image"]), service["image"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_variables_are_settings_and_draining_is_not_cut_off(composed: dict[str, Any]) -> None:
    eqr = composed["services"]["eqr"]
    given = {name: value for name, value in eqr["environment"].items() if name.startswith(PREFIX)}
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in given.items()}
    settings = Settings(**fields)
    assert settings.store_url is not None
    host = re.fullmatch(r"redis://(\w+):6379/0", settings.store_url.get_secret_value())
    assert host is not None
    assert host[1] in composed["services"]
    assert seconds(eqr["stop_grace_period"]) >= settings.drain_seconds + 25


def seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(\d+)m)?(\d+)s", text)
    assert found is not None, text
    return int(found[1] or 0) * 60 + int(found[2])


def test_the_store_keeps_jobs(composed: dict[str, Any]) -> None:
    command = composed["services"]["store"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"].startswith("volatile-")


def test_prometheus_scrapes_the_service_and_has_its_rules(composed: dict[str, Any]) -> None:
    (folder,) = mounts(composed["services"]["prometheus"]).values()
    config = yaml.safe_load((Path(folder) / "prometheus.yml").read_text())
    for name in config["rule_files"]:
        assert (Path(folder) / name).is_file()
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "eqr"
    ((target,),) = (one["targets"] for one in job["static_configs"])
    assert target == f"eqr:{Settings().port}"


def test_grafana_finds_source_and_dashboard(composed: dict[str, Any]) -> None:
    grafana = composed["services"]["grafana"]
    folders = mounts(grafana)
    provisioning = Path(folders["/etc/grafana/provisioning"])
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/eqr.yml").read_text())["providers"]
    there = Path(folders[provider["options"]["path"]])
    assert there == DEPLOY / "grafana/dashboards"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    assert (there / home.name).is_file()

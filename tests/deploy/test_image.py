"""Dockerfile and .dockerignore, as far as they can be checked without a container engine."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from service.settings import PREFIX, Settings
from tests.deploy.tools import ROOT, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction of a Dockerfile; comments and line ends are gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (name.upper(), rest.strip())
        for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions(DOCKERFILE)
    begin = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [tool("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_does_not_run_as_root() -> None:
    users = [rest for name, rest in last_stage() if name == "USER"]
    assert users
    # A number: Kubernetes' runAsNonRoot cannot judge a name.
    assert all(user.isdecimal() and int(user) > 0 for user in users)


def test_a_signal_reaches_the_service() -> None:
    stage = dict(last_stage())
    for name in ("ENTRYPOINT", "CMD"):
        assert stage[name].startswith("["), f"{name} is run by a shell, which keeps signals"
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_ports_and_variables_are_the_settings() -> None:
    stage = last_stage()
    defaults = Settings()
    (ports,) = (rest.split() for name, rest in stage if name == "EXPOSE")
    assert ports == [str(defaults.port), str(defaults.grpc_port)]
    named = {word for _, rest in stage for word in re.findall(rf"\b{PREFIX}[A-Z_]+", rest)}
    assert named
    assert named <= {PREFIX + field.upper() for field in Settings.model_fields}


def test_the_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_package_can_be_built_from_the_context(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=left_out)
        else:
            shutil.copy(source, context / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(context)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    kinds = (".py", ".cpp", ".h", ".safetensors", ".json", ".toml", ".html", ".css", ".js", ".svg")
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("eqr_core", "service")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kinds
    }
    assert sources <= files, sources - files
    assert any(name.endswith("/licenses/LICENSE") for name in files)


def copied() -> list[str]:
    """What the build stage takes from the context; .dockerignore must let it in."""
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    names = [
        source
        for name, rest in instructions(DOCKERFILE)
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert {name.removeprefix("./") for name in names} == allowed
    return [name.removeprefix("./") for name in names]


def left_out(folder: str, names: list[str]) -> list[str]:
    patterns = [
        line.removeprefix("**/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("**/")
    ]
    return [name for name in names if any(fnmatch.fnmatch(name, one) for one in patterns)]

"""What users get with the package: what they import, and what they need not install for it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import eqr_core
from eqr_core import errors

ROOT = Path(__file__).parents[1]

FACE = {"Solver", "Budget", "Answer", "Problem"}
ERRORS = {
    name
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and issubclass(thing, Exception)
}

ABSENT_FROM_CORE = ["ray", "fastapi", "starlette", "redis", "grpc", "prometheus_client"]


def test_the_library_exports_its_face_and_its_errors() -> None:
    assert set(eqr_core.__all__) == {*FACE, *ERRORS}
    for name in eqr_core.__all__:
        assert getattr(eqr_core, name).__name__ == name


@pytest.mark.parametrize("module", ["eqr_core", "eqr_core.cli", "eqr_core.training"])
def test_the_library_loads_no_server(module: str) -> None:
    loaded = f"[name for name in {ABSENT_FROM_CORE} if name in sys.modules]"
    assert run(f"import sys, {module}; print({loaded})") == "[]"


@pytest.mark.parametrize("module", ["budget", "scheduler", "trajectory"])
def test_the_scheduler_runs_without_torch(module: str) -> None:
    """The package's face needs torch, so the module is loaded beside it."""
    run(
        "import sys, types\n"
        "sys.modules['torch'] = None\n"
        "face = types.ModuleType('eqr_core')\n"
        "face.__path__ = ['eqr_core']\n"
        "sys.modules['eqr_core'] = face\n"
        f"import eqr_core.engine.{module}\n"
    )


def test_every_file_of_the_packages_is_installed_with_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = {
        file
        for package, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {
        file
        for package in ("eqr_core", "service")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert there - installed == set()


def test_the_library_alone_brings_no_package_of_the_service() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed, service, client = (
        {re.split(r"[^\w-]", line)[0] for line in lines}
        for lines in (project["dependencies"], extras["service"], extras["client"])
    )
    assert {"ray", "fastapi", "redis", "eqr"} <= service
    assert {"httpx", "grpcio", "pydantic"} <= client
    assert not needed & (service | client)
    assert not {"torch", "ray"} & (needed | client)


def test_the_clients_need_what_their_extra_brings_and_no_more() -> None:
    """In an interpreter where Ray, torch and all that only servers need cannot be imported."""
    hidden = ["torch", "ray", "fastapi", "starlette", "redis", "prometheus_client", "uvicorn"]
    assert (
        run(
            "import sys\n"
            f"sys.modules.update(dict.fromkeys({hidden}))\n"
            "from service.client import AsyncEqrClient, ConnectionFailed, EqrClient, NO_RETRIES\n"
            "for server in ('http://127.0.0.1:9', 'grpc://127.0.0.1:9'):\n"
            "    AsyncEqrClient(server)\n"
            "    try:\n"
            "        EqrClient(server, retries=NO_RETRIES).solve([[1, 0, 0, 0]] + 3 * [[0] * 4])\n"
            "    except ConnectionFailed:\n"
            "        print('tried', end=' ')\n"
        )
        == "tried tried"
    )


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

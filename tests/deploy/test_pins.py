"""constraints.txt pins all that is installed with the project, so `make audit` sees all of it."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.tools import ROOT

PINS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}


def wanted() -> list[Requirement]:
    """What the project and all its extras ask for, this project's own extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(line) for lines in lists for line in lines]
    return [one for one in found if one.name != project["name"]]


def installed(requirements: list[Requirement]) -> dict[str, Version]:
    """Versions of `requirements` and of what they ask for in turn, where they are installed."""
    versions: dict[str, Version] = {}
    seen: set[tuple[str, str]] = set()
    line = list(requirements)
    while line:
        requirement = line.pop()
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        versions[name] = Version(found.version)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in found.requires or ():
                below = Requirement(text)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    line.append(below)
    return versions


FOUND = installed(wanted())


def test_the_project_is_installed() -> None:
    assert {"torch", "ray", "fastapi", "pytest"} <= set(FOUND)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_is_installed_is_pinned(name: str) -> None:
    assert name in PINS, f"constraints.txt does not pin {name}"


def test_every_pin_is_one_version() -> None:
    for name, version in PINS.items():
        assert name
        assert str(Version(version))

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.readme import README, ROOT, Block, blocks, run

RUNNABLE = [block for block in blocks() if block.mark == "runs"]
MAKE = [
    line.split("#")[0].split()[1]
    for block in blocks()
    for line in block.code.splitlines()
    if line.startswith("make ")
]
PROSE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"]


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"line {block.line}")
def test_a_block_runs_and_prints_what_it_says(block: Block, tmp_path: Path) -> None:
    printed = run(block, tmp_path)
    assert printed
    if block.expected is not None:
        assert printed == block.expected


def test_the_readme_promises_something() -> None:
    assert {block.language for block in RUNNABLE} == {"python", "bash"}
    assert set(MAKE) == {"run", "test"}
    for block in blocks():
        assert block.mark in ("runs", "server", ""), block
        assert block.mark or all(line.startswith("make ") for line in block.code.splitlines())


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", MAKE)
def test_a_make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_screen_has_both_commands_and_a_call_with_its_answer() -> None:
    first = "\n".join(README.splitlines()[:40])
    for promise in ("make run", "make test", "curl ", "<!-- answer -->"):
        assert promise in first


@pytest.mark.parametrize("page", PROSE)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target

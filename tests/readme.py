"""The code blocks of the README, with the comment that says what a test does with each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """`mark` is empty where nothing is promised; `expected` is the marked block that follows."""

    language: str
    mark: str
    code: str
    line: int
    expected: str | None = None


def blocks() -> list[Block]:
    """All blocks in order; expected outputs are joined to the block before them."""
    found: list[Block] = []
    for match in BLOCK.finditer(README):
        mark, code = match["mark"] or "", match["code"]
        if mark in ("output", "answer"):
            last = found.pop()
            found.append(Block(last.language, last.mark, last.code, last.line, code))
        else:
            line = README.count("\n", 0, match.start("code")) + 1
            found.append(Block(match["language"], mark, code, line))
    return found


def run(block: Block, folder: Path) -> str:
    """Execute a block in `folder`, `eqr` being this checkout's, and return what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "",
        "COLUMNS": "120",
        "README_PYTHON": sys.executable,
    }
    eqr = """eqr() { "$README_PYTHON" -c 'from service.cli import main; main()' "$@"; }\n"""
    command = {
        "python": [sys.executable, "-c", block.code],
        "bash": ["bash", "-euo", "pipefail", "-c", eqr + block.code],
    }[block.language]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"README.md, line {block.line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout

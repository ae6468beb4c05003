"""The README's calls, against a real service."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.readme import Block, blocks, run

ADDRESS = "http://127.0.0.1:8000"
CALLS = [block for block in blocks() if block.mark == "server"]
SAME = ("task", "model", "grid", "text", "converged", "verified", "finish_reason", "seed")


def test_the_readme_makes_calls() -> None:
    assert len(CALLS) >= 2


@pytest.mark.parametrize("block", CALLS, ids=lambda block: f"line {block.line}")
def test_a_call_is_answered_as_the_readme_says(
    block: Block, server_url: str, tmp_path: Path
) -> None:
    if re.search(r"^curl ", block.code, re.MULTILINE) and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert ADDRESS in block.code
    code = block.code.replace(ADDRESS, server_url.rstrip("/"))
    printed = run(dataclasses.replace(block, code=code), tmp_path)
    assert printed
    if block.expected is not None:
        answer, promised = json.loads(printed), json.loads(block.expected)
        assert shape(answer) == shape(promised), printed
        assert {key: answer[key] for key in SAME} == {key: promised[key] for key in SAME}


def shape(value: Any) -> Any:
    """The names in a JSON object; what a run measures (times, counts, ids) is left out."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else ...

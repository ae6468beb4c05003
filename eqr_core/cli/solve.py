"""`eqr solve`: one grid, in this process."""

from __future__ import annotations

import json
import sys
from typing import Any, cast

import typer
from rich.console import Console

from eqr_core.cli import options
from eqr_core.cli.drawing import draw_grid, summary
from eqr_core.engine.budget import Budget
from eqr_core.errors import DataError

MAX_INPUT = 1 << 20
"""Characters read from standard input."""


def solve(
    grid: options.Grid,
    model: options.Model = None,
    task: options.Task = None,
    depth: options.Depth = Budget.depth,
    breadth: options.Breadth = Budget.breadth,
    nfe: options.Nfe = None,
    deadline_ms: options.DeadlineMs = None,
    tolerance: options.Tolerance = None,
    stop: options.Stop = Budget.stop,
    halt: options.Halt = Budget.halt,
    patience: options.Patience = None,
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    as_json: options.AsJson = False,
) -> None:
    """Solve one grid and draw the answer."""
    from eqr_core.tasks import parse_grid

    budget = Budget(
        depth, breadth, nfe, deadline_ms, tolerance, cast(Any, stop), cast(Any, halt), patience
    )
    text = read_grid(grid)
    parsed_task, parsed = parse_grid(text, task)

    from eqr_core.engine.document import answer_document
    from eqr_core.engine.engine import Engine
    from eqr_core.model.checkpoint import zoo_names
    from eqr_core.solver import Solver

    engine = Engine([model] if model else zoo_names(), slots=min(64, budget.breadth))
    answer = Solver(engine).solve(
        text, budget, seed=seed, noise=noise, selection=cast(Any, selection), task=task
    )
    document = answer_document(answer)
    if as_json:
        typer.echo(json.dumps(document))
        return
    console = Console()
    console.print(draw_grid(parsed_task, parsed, answer.grid))
    console.print(summary(document), highlight=False)


def read_grid(text: str) -> str:
    """The grid's text: `text` itself, or standard input for ``-``."""
    if text != "-":
        return text
    try:
        text = sys.stdin.read(MAX_INPUT)
    except UnicodeDecodeError:
        raise DataError("standard input holds no text") from None
    if not text.strip():
        raise DataError("standard input is empty; it must hold a grid")
    return text

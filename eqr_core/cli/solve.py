"""`eqr solve`: one grid, in this process."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console

from eqr_core.cli import options
from eqr_core.cli.drawing import draw_grid, summary
from eqr_core.engine.budget import Budget
from eqr_core.errors import DataError

if TYPE_CHECKING:
    from eqr_core.engine.answer import Answer

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
    seed: options.Seed = 0,
    noise: options.Noise = 0.0,
    selection: options.Selection = "residual",
    as_json: options.AsJson = False,
) -> None:
    """Solve one grid and draw the answer."""
    from eqr_core.tasks import parse_grid

    budget = Budget(depth, breadth, nfe, deadline_ms, tolerance, cast(Any, stop))
    text = read_grid(grid)
    parsed_task, parsed = parse_grid(text, task)

    from eqr_core.engine.engine import Engine
    from eqr_core.model.checkpoint import zoo_names
    from eqr_core.solver import Solver

    engine = Engine([model] if model else zoo_names(), slots=min(64, budget.breadth))
    answer = Solver(engine).solve(
        text, budget, seed=seed, noise=noise, selection=cast(Any, selection), task=task
    )
    document = to_document(answer)
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


def to_document(answer: Answer) -> dict[str, Any]:
    """The answer in the JSON form of `POST /solve` (DESIGN section 5)."""
    queue, spent = answer.queue_seconds * 1000, answer.solve_seconds * 1000
    return {
        "id": answer.id,
        "task": answer.task,
        "model": answer.model,
        "grid": [list(row) for row in answer.grid],
        "text": answer.text,
        "residual": answer.residual if math.isfinite(answer.residual) else None,
        "converged": answer.converged,
        "verified": answer.verified,
        "finish_reason": answer.finish_reason,
        "iterations": answer.iterations,
        "nfe": answer.nfe,
        "layers": answer.layers,
        "breadth": {
            "started": answer.started,
            "converged": answer.finished_converged,
            "lost": answer.lost,
        },
        "agreement": answer.agreement,
        "seed": answer.seed,
        "cached": False,
        "timing_ms": {"queue": queue, "solve": spent, "total": queue + spent},
    }

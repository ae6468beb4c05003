"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from eqr_core.engine import budget, halting, selection

Grid = Annotated[
    str, typer.Argument(help="Digits, . or 0 for blanks; a maze has / between rows; - reads it.")
]
Model = Annotated[str | None, typer.Option(help="Name or folder of a checkpoint.")]
Task = Annotated[str | None, typer.Option(help="Task, where the grid does not tell.")]
DeadlineMs = Annotated[float | None, typer.Option(help="Time limit in ms.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Depth = Annotated[int, typer.Option(help="Outer steps of one trajectory at most.")]
Breadth = Annotated[int, typer.Option(help="Trajectories at most.")]
Nfe = Annotated[int | None, typer.Option(help="Outer steps of all trajectories at most.")]
Tolerance = Annotated[
    float | None, typer.Option(help="Score that counts as converged, not the checkpoint's.")
]
Stop = Annotated[
    str,
    typer.Option(
        metavar="|".join(get_args(budget.Stop)),
        help="converged: more trajectories only while none has converged. verified: only while "
        "no answer obeys the rules. exhausted: all of them, each to its full depth.",
    ),
]
Halt = Annotated[
    str,
    typer.Option(
        metavar="|".join(get_args(halting.Halt)),
        help="What has converged. residual: a score within the tolerance. q: the operator's own "
        "halting output is positive. unchanged: the same prediction again.",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(help="Outer steps in a row for that; default 1 for residual, q 3, unchanged 6."),
]
Seed = Annotated[int, typer.Option(help="Decides initial states and noise.")]
Noise = Annotated[float, typer.Option(help="Standard deviation of the path noise.")]
Selection = Annotated[
    str,
    typer.Option(
        metavar="|".join(get_args(selection.Selection)),
        help="residual: the lowest score answers. majority: the most frequent grid; it needs "
        "--stop exhausted to have a choice.",
    ),
]
Slots = Annotated[int, typer.Option(help="Trajectories that run together.", min=1, max=4096)]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Let torch compile an operator without native code first; pays on long runs.",
    ),
]

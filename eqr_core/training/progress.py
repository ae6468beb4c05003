"""What a run shows while it goes on: a live line in the terminal and two CSV files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from eqr_core.training.segment import Outcome
from eqr_core.training.validate import Validation

CURVE = ["step", "samples", "seconds", "loss", "halted_exact", "halting_step", "residual",
         "gradient_norm", "samples_per_second"]  # fmt: skip
VALIDATIONS = ["step", "seconds", "size", "rows", "exact", "residual_right", "residual_wrong"]
EVERY = 50
"""Optimiser steps that one line of the curve sums up."""


@dataclass
class Window:
    """Sums over the outcomes since the last line of the curve."""

    outcomes: list[Outcome] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Means over the window; the share of exact and the halting step over halted samples."""
        count, halted = len(self.outcomes), sum(o.halted for o in self.outcomes)
        return {
            "loss": sum(o.loss for o in self.outcomes) / count,
            "halted_exact": sum(o.exact for o in self.outcomes) / max(1, halted),
            "halting_step": sum(o.halted_steps for o in self.outcomes) / max(1, halted),
            "residual": sum(o.residual for o in self.outcomes) / count,
            "gradient_norm": sum(self.norms) / count,
        }


class Display:
    """Live progress on standard error, and `curve.csv` and `validation.csv` in `folder`."""

    def __init__(self, folder: Path, name: str, steps: int, first_step: int) -> None:
        self.folder = folder
        self.window = Window()
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn(f"[bold]{name}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.bar = self.progress.add_task(name, total=steps, completed=first_step, note="")
        for file, columns in (("curve.csv", CURVE), ("validation.csv", VALIDATIONS)):
            _cut_after(folder / file, columns, first_step)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False)

    def trained(
        self, step: int, samples: int, seconds: float, outcome: Outcome, norm: float
    ) -> None:
        """One optimiser step is done; `step`, `samples` and `seconds` count from the start."""
        self.window.outcomes.append(outcome)
        self.window.norms.append(norm)
        if step % EVERY:
            return
        row = self.window.row()
        self.window = Window()
        speed = samples / max(seconds, 1e-9)
        _append(
            self.folder / "curve.csv",
            [step, samples, f"{seconds:.1f}", *(f"{value:.6g}" for value in row.values()),
             f"{speed:.1f}"],
        )  # fmt: skip
        note = (
            f"loss {row['loss']:.3f}, exact {row['halted_exact']:.1%} at step "
            f"{row['halting_step']:.1f}, residual {row['residual']:.3f}, {speed:.0f} samples/s"
        )
        self.progress.update(self.bar, completed=step, note=note)
        if self.progress.disable:
            self.say(f"step {step}, {seconds:.0f} s: {note}")

    def validated(self, step: int, seconds: float, result: Validation, best: bool) -> None:
        """One size has been validated."""
        _append(
            self.folder / "validation.csv",
            [step, f"{seconds:.1f}", result.size, result.rows, f"{result.exact:.6f}",
             f"{result.residual_right:.4g}", f"{result.residual_wrong:.4g}"],
        )  # fmt: skip
        mark = ", the best so far" if best else ""
        self.say(f"step {step}: {result.size} exact {result.exact:.1%} of {result.rows}{mark}")


def _append(path: Path, row: Sequence[object]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _cut_after(path: Path, columns: list[str], step: int) -> None:
    """Keep the lines up to `step`: what an interrupted run logged past its state runs again."""
    kept: list[list[str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *kept])

"""What a run leaves on disk as it goes: `curve.csv` and `validation.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eqr_core.training.segment import Outcome
from eqr_core.training.validate import Validation

CURVE = ["step", "samples", "seconds", "loss", "halted_exact", "halting_step", "residual",
         "gradient_norm", "samples_per_second"]  # fmt: skip
VALIDATIONS = ["step", "seconds", "size", "rows", "exact", "residual_right", "residual_wrong"]


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


class CurveFiles:
    """The two files in `folder`, cut back to `step`: what an interrupted run logged past its
    saved state runs again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.curve = folder / "curve.csv"
        self.validations = folder / "validation.csv"
        _cut_after(self.curve, CURVE, step)
        _cut_after(self.validations, VALIDATIONS, step)

    def trained(
        self, step: int, samples: int, seconds: float, row: dict[str, float], speed: float
    ) -> None:
        """A line of the curve; `samples` and `seconds` count from the start of the run."""
        values = [f"{value:.6g}" for value in row.values()]
        _append(self.curve, [step, samples, f"{seconds:.1f}", *values, f"{speed:.1f}"])

    def validated(self, step: int, seconds: float, result: Validation) -> None:
        """One size has been validated."""
        residuals = [f"{result.residual_right:.4g}", f"{result.residual_wrong:.4g}"]
        row = [step, f"{seconds:.1f}", result.size, result.rows, f"{result.exact:.6f}"]
        _append(self.validations, [*row, *residuals])


def _append(path: Path, row: Sequence[object]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _cut_after(path: Path, columns: list[str], step: int) -> None:
    kept: list[list[str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(columns)]
            kept = [row for row in rows if row[0].isdigit() and int(row[0]) <= step]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *kept])

"""What a run leaves on disk as it goes: `curve.csv` and `validation.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from eqr_core.errors import TrainingError
from eqr_core.training.segment import Outcome
from eqr_core.training.team import Team
from eqr_core.training.validate import Validation

CURVE = ["step", "samples", "seconds", "loss", "halted_exact", "halting_step", "residual",
         "gradient_norm", "samples_per_second"]  # fmt: skip
VALIDATIONS = ["step", "seconds", "size", "rows", "exact", "residual_right", "residual_wrong"]


@dataclass
class Window:
    """What was seen since the last line of the curve; on the device until someone reads it."""

    outcomes: list[Outcome] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    def check(self, done: int) -> None:
        """TrainingError where a gradient was not finite in the window that ends at step `done`."""
        norms = torch.stack(self.norms).tolist() if self.norms else []
        for number, norm in enumerate(norms, start=done - len(norms) + 1):
            if not math.isfinite(norm):
                raise TrainingError(
                    f"the gradient's norm is {norm} at optimiser step {number}; "
                    "a lower matrix_lr and lr may help"
                )

    def tensors(self, team: Team) -> dict[str, Tensor]:
        """What the next line is made of so far, of the whole team, for the training state."""
        if not self.outcomes:
            return {}
        seen = torch.stack([_values(one) for one in self.outcomes])
        return {"outcomes": team.total(seen), "norms": torch.stack(self.norms)}

    def restore(self, tensors: dict[str, Tensor], team: Team, device: torch.device) -> None:
        """Take back what `tensors` gave; the team's first worker holds it for all."""
        for number, values in enumerate(tensors.get("outcomes", [])):
            mine = values.to(device) if team.rank == 0 else torch.zeros_like(values, device=device)
            self.outcomes.append(Outcome(*mine))
            self.norms.append(tensors["norms"][number].to(device))

    def row(self, team: Team) -> dict[str, float]:
        """Means over the window; the share of exact and the halting step over halted samples."""
        sums = team.total(torch.stack([_values(one) for one in self.outcomes]).sum(0))
        rows, loss, halted, exact, halted_steps, moved = sums.tolist()
        return {
            "loss": loss / rows,
            "halted_exact": exact / max(1, halted),
            "halting_step": halted_steps / max(1, halted),
            "residual": moved / rows,
            "gradient_norm": float(torch.stack(self.norms).mean()),
        }


def _values(outcome: Outcome) -> Tensor:
    return torch.stack([getattr(outcome, item.name).float() for item in fields(outcome)])


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

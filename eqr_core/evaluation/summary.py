"""Everything an evaluation has found, added up part by part; one part in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eqr_core.evaluation.curves import Iterations, Reliability, ResidualCurve
from eqr_core.evaluation.landscape import Landscape, diagnose
from eqr_core.evaluation.part import COUNTS, Part, RowRecord
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.report import Report, Subject, Tally
from eqr_core.evaluation.sweep import Settings

SOLVED_EXAMPLES = 2


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns."""

    reports: tuple[Report, ...]
    """One for each cell, in the order of `Sweep.budgets`."""
    landscape: Landscape | None
    """The regime of each input; None without full trajectories, which takes the stop `exhausted`
    and no NFE limit."""
    residual: list[dict[str, Any]] | None
    """Accuracy of trajectories by their final score; None without full trajectories."""
    diverged: int | None
    """Full trajectories that are in no bin because their state is no longer finite."""
    reliability: list[dict[str, Any]] | None
    """Precision and recall of halting by threshold; None without full trajectories."""
    iterations: dict[str, dict[str, Any]] | None
    """Iterations to converge by rating; None without a tolerance."""
    examples: tuple[int, ...]
    """Rows worth a look: the hardest that `main` solved, of different sources, then the easiest
    that it did not."""

    @property
    def main(self) -> Report:
        """The cell of the largest budget, of the first stop that was asked for."""
        return [report for report in self.reports if report.stop == self.reports[0].stop][-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the main report's fields, then the rest."""
        return {
            **self.main.to_dict(),
            "cells": [report.to_dict() for report in self.reports],
            "landscape": None if self.landscape is None else self.landscape.table(),
            "accuracy_by_residual": self.residual,
            "diverged_trajectories": self.diverged,
            "reliability": self.reliability,
            "iterations_to_converge": self.iterations,
        }


class Summary:
    """Adds up parts in the order of their rows."""

    def __init__(self, settings: Settings, model: str, data: str, ratings: RatingClasses) -> None:
        self._settings, self._model, self._data = settings, model, data
        sweep, tolerance = settings.sweep, settings.tolerance
        self._tallies = [Tally(ratings) for _ in sweep.budgets]
        self._seconds = 0.0
        self._residual = ResidualCurve() if sweep.full else None
        self._reliability = Reliability() if sweep.full else None
        self._iterations = None if tolerance is None else Iterations(tolerance, ratings)
        self._landscape = Landscape(ratings) if sweep.full else None
        self._hardest: dict[str, tuple[int, int]] = {}
        self._easiest: tuple[int, int] | None = None

    def add(self, first: int, subjects: Sequence[Subject], part: Part) -> None:
        """Count the rows `first`, `first` + 1, … of a part."""
        self._seconds += float(part.seconds)
        records = zip(subjects, part.records(), strict=True)
        for row, (subject, record) in enumerate(records, start=first):
            for tally, counts in zip(self._tallies, record.cells, strict=True):
                tally.add(subject, counts)
            if self._iterations is not None:
                self._iterations.add(record.residual[: record.steps[0]], subject.rating)
            if record.steps.any():  # none ran on a full grid
                self._add_trajectories(row, subject, record)
                self._choose(row, subject, record)

    def _add_trajectories(self, row: int, subject: Subject, record: RowRecord) -> None:
        if self._residual is None or self._reliability is None or self._landscape is None:
            return
        residual, right = record.dense(self._settings.sweep.depth, subject.tokens)
        self._residual.add(residual, right)
        self._reliability.add(residual, right)
        self._landscape.add(row, subject, diagnose(residual, right, self._settings.noise))

    def _choose(self, row: int, subject: Subject, record: RowRecord) -> None:
        """Keep (rating, row) where it is the hardest of its source solved, or the easiest not."""
        right_cells = record.cells[self._settings.sweep.main, COUNTS.index("right_cells")]
        if right_cells < subject.tokens:
            if self._easiest is None or subject.rating < self._easiest[0]:
                self._easiest = subject.rating, row
        elif subject.rating > self._hardest.get(subject.source, (-math.inf, 0))[0]:
            self._hardest[subject.source] = subject.rating, row

    def result(self) -> Evaluation:
        """The evaluation of everything that was added."""
        settings = self._settings
        sweep = settings.sweep
        reports = tuple(
            tally.report(
                model=self._model,
                digest=settings.digest,
                data=self._data,
                depth=budget.depth,
                breadth=budget.breadth,
                nfe=budget.nfe,
                stop=budget.stop,
                halt=budget.halt,
                patience=budget.steps_in_a_row,
                tolerance=settings.tolerance,
                noise=settings.noise,
                seed=settings.seed,
                selection=settings.selection,
                seconds=self._seconds,
            )
            for tally, budget in zip(self._tallies, sweep.budgets, strict=True)
        )
        hardest = sorted(self._hardest.values(), key=lambda one: -one[0])[:SOLVED_EXAMPLES]
        easiest = [] if self._easiest is None else [self._easiest]
        return Evaluation(
            reports=reports,
            landscape=self._landscape,
            residual=None if self._residual is None else self._residual.to_dict(),
            diverged=None if self._residual is None else self._residual.diverged,
            reliability=None if self._reliability is None else self._reliability.to_dict(),
            iterations=None if self._iterations is None else self._iterations.to_dict(),
            examples=tuple(row for _, row in (*hardest, *easiest)),
        )

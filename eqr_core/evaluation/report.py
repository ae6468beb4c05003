"""What an evaluation counts, and the report that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eqr_core.evaluation.part import COUNTS, FINISH_REASONS
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.shares import Share


@dataclass(frozen=True)
class Subject:
    """What the tables need to know of a puzzle."""

    source: str
    rating: int
    rows: int
    columns: int

    @property
    def size(self) -> str:
        """As a task's."""
        return f"{self.rows}x{self.columns}"

    @property
    def tokens(self) -> int:
        """Cells of its grid."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Report:
    """What a checkpoint did on `rows` puzzles; shares are from 0 to 1."""

    model: str
    digest: str
    data: str
    rows: int
    depth: int
    breadth: int
    nfe: int | None
    stop: str
    tolerance: float | None
    halt: str
    patience: int
    noise: float
    seed: int
    selection: str
    exact: int
    exact_accuracy: float
    """Share of the puzzles with every cell right."""
    exact_interval: tuple[float, float]
    """Wilson's 95 % interval of `exact_accuracy`."""
    cell_accuracy: float
    """Share of right cells among all cells, clues included."""
    converged: float
    """Share of the puzzles whose answer converged."""
    verified: float
    """Share of the puzzles whose answer obeys the rules and extends the input."""
    exact_given_converged: float | None
    """Share of right answers among the converged ones; None where none converged."""
    mean_iterations: float
    """Outer steps of the chosen trajectory."""
    mean_nfe: float
    """Outer steps of all trajectories of a puzzle."""
    seconds: float
    finish_reasons: dict[str, int]
    source: dict[str, dict[str, Any]]
    """Exact accuracy with counts and interval, for each source of the file."""
    rating: dict[str, dict[str, Any]]
    """The same for each difficulty class that occurs."""
    size: dict[str, dict[str, Any]]
    """The same for each size, from the smallest."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Tally:
    """Counts over the answers of one evaluation."""

    def __init__(self, ratings: RatingClasses) -> None:
        self.ratings = ratings
        self.exact: list[bool] = []
        self.cells = self.right_cells = 0
        self.converged = self.verified = self.right_converged = 0
        self.iterations = self.nfe = 0
        self.finish_reasons: Counter[str] = Counter()
        self.by_source: dict[str, list[bool]] = {}
        self.by_rating: dict[str, list[bool]] = {name: [] for name in ratings.names}
        self.by_size: dict[tuple[int, int], list[bool]] = {}

    def add(self, puzzle: Subject, counts: npt.NDArray[np.int64]) -> None:
        """Count what one cell of a sweep came to on one puzzle, [COUNTS]."""
        got = dict(zip(COUNTS, counts.tolist(), strict=True))
        right = got["right_cells"] == puzzle.tokens
        self.exact.append(right)
        self.cells += puzzle.tokens
        self.right_cells += got["right_cells"]
        self.converged += got["converged"]
        self.verified += got["verified"]
        self.right_converged += right and got["converged"]
        self.iterations += got["iterations"]
        self.nfe += got["nfe"]
        self.finish_reasons[FINISH_REASONS[got["finish_reason"]]] += 1
        self.by_source.setdefault(puzzle.source, []).append(right)
        self.by_rating[self.ratings.name(puzzle.rating)].append(right)
        self.by_size.setdefault((puzzle.rows, puzzle.columns), []).append(right)

    def report(self, **settings: Any) -> Report:
        """The report on what was counted; `settings` are its fields that are not counted."""
        rows = len(self.exact)
        exact = _share(self.exact)
        return Report(
            rows=rows,
            exact=exact.count,
            exact_accuracy=exact.count / rows,
            exact_interval=exact.interval,
            cell_accuracy=self.right_cells / self.cells,
            converged=self.converged / rows,
            verified=self.verified / rows,
            exact_given_converged=Share(self.right_converged, self.converged).value,
            mean_iterations=self.iterations / rows,
            mean_nfe=self.nfe / rows,
            finish_reasons=dict(self.finish_reasons),
            source={name: _share(v).to_dict() for name, v in sorted(self.by_source.items())},
            rating={name: _share(v).to_dict() for name, v in self.by_rating.items() if v},
            size={
                f"{rows}x{columns}": _share(v).to_dict()
                for (rows, columns), v in sorted(self.by_size.items())
            },
            **settings,
        )


def _share(outcomes: Sequence[bool]) -> Share:
    return Share(sum(outcomes), len(outcomes))

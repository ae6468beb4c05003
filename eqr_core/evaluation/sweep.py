"""What an evaluation runs: every combination of depths, breadths and stops, and its identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.halting import Halt
from eqr_core.engine.selection import Selection
from eqr_core.errors import DataError

CHUNK_STEPS = 16_384
"""Outer steps of one chunk at most, as far as whole rows allow."""
CHUNK_ROWS = (4, 64)
"""Rows of one chunk, at least and at most."""


@dataclass(frozen=True)
class Sweep:
    """Depths × breadths × stops; BudgetError names a value outside its limits, as in `Budget`.

    `exhausted` is the fixed budget of the paper's tables, `converged` and `verified` the adaptive
    ones. Each combination is a *cell*. All of them share their trajectories: a trajectory depends
    on (seed, index, step) alone, so a shorter or a narrower run is a part of a longer or wider.

    >>> len(Sweep((4, 16), (1, 4), ("exhausted", "converged")).budgets)
    8
    """

    depths: tuple[int, ...] = (16,)
    breadths: tuple[int, ...] = (1,)
    stops: tuple[Stop, ...] = ("converged",)
    nfe: int | None = None
    """Outer steps of all trajectories of a puzzle at most, in every cell."""
    tolerance: float | None = None
    """None: the checkpoint's own."""
    halt: Halt = "residual"
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("depths", "breadths", "stops"):
            values = getattr(self, name)
            if not values:
                raise DataError(f"{name} is empty; it must hold at least one value")
            twice = next((v for v in values if values.count(v) > 1), None)
            if twice is not None:
                raise DataError(f"{name}: {twice} stands more than once")
        _ = self.budgets
        for name in ("depths", "breadths"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))

    @classmethod
    def parse(
        cls,
        depth: str,
        breadth: str,
        stop: str | None = None,
        nfe: int | None = None,
        tolerance: float | None = None,
        halt: Halt = "residual",
        patience: int | None = None,
    ) -> Sweep:
        """The sweep of what a user wrote: values separated by commas.

        Without `stop` a single budget is adaptive, and a sweep both fixed and adaptive.
        DataError names what is no list of whole numbers.
        """
        depths, breadths = _whole("depth", depth), _whole("breadth", breadth)
        single = len(depths) == len(breadths) == 1
        stops = (
            [stop.strip() for stop in stop.split(",")]
            if stop is not None
            else (["converged"] if single else ["exhausted", "converged"])
        )
        return cls(depths, breadths, tuple(cast(list[Stop], stops)), nfe, tolerance, halt, patience)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budget of each cell: stop by stop, depth by depth, breadth by breadth."""
        return tuple(
            Budget(depth, breadth, self.nfe, None, self.tolerance, stop, self.halt, self.patience)
            for stop in self.stops
            for depth in self.depths
            for breadth in self.breadths
        )

    @property
    def depth(self) -> int:
        """The largest depth."""
        return max(self.depths)

    @property
    def breadth(self) -> int:
        """The largest breadth."""
        return max(self.breadths)

    @property
    def main(self) -> int:
        """Place in `budgets` of the largest budget with the first stop."""
        return len(self.depths) * len(self.breadths) - 1

    @property
    def full(self) -> bool:
        """Whether every trajectory runs to the largest depth whatever the others do.

        Only then can the landscape be read: a run that stops early does not show it.
        """
        return "exhausted" in self.stops and self.nfe is None

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk: what is computed, stored and, after an interruption, lost at once."""
        low, high = CHUNK_ROWS
        return max(low, min(high, CHUNK_STEPS // (self.depth * self.breadth)))


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of an evaluation. Two with equal ones are the same."""

    digest: str
    """SHA-256 of the weights."""
    data_digest: str
    """SHA-256 over the rows."""
    rows: int
    sweep: Sweep
    tolerance: float | None
    """The one in force: the sweep's, else the checkpoint's."""
    seed: int
    noise: float
    selection: Selection
    arithmetic: str
    """What computed, as `runner.arithmetic` names it: results that may differ are not mixed."""

    def identity(self) -> dict[str, Any]:
        """Plain values for JSON, one for each thing that two evaluations can differ in."""
        values = asdict(self)
        sweep = values.pop("sweep")
        sweep.pop("tolerance")
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in sweep.items()}
        return {**values, **plain}


def _whole(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in text.split(","))
    except ValueError:
        raise DataError(
            f"{name} is {text!r:.60}; it must be a whole number, or several such as 1,4,16"
        ) from None

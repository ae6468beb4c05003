"""The benchmark that comes with the package: 1,000 generated 9×9 puzzles over the rating range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.stream import Wanted, first_rows

NAME = "benchmark"
FILE = Path(__file__).parent / "benchmark.csv.gz"

BANDS = ((0, 0), (1, 10), (11, 30), (31, 100), (101, None))
"""Lowest and highest rating of each fifth."""

SEED = 2026
PUZZLES = 1000


def find_puzzles(data: Path) -> Path:
    """The puzzle file that `data` names: ``benchmark``, unless there is such a file here."""
    return FILE if str(data) == NAME and not data.exists() else data


def benchmark_rows(
    count: int = PUZZLES, workers: int = 1, report: Callable[[], None] = lambda: None
) -> Iterator[PuzzleRow]:
    """Make the first `count` rows of the benchmark again; `report` is called after each.

    Row i is of the band i mod 5, so that the first rows of the file have all of them.
    """
    bands = []
    for band, (low, high) in enumerate(BANDS):
        share = (count - band + len(BANDS) - 1) // len(BANDS)
        rows = []
        wanted = Wanted(9, (3, 3), SEED, None, low or None, high)
        for row in first_rows(wanted, share, workers) if share else ():
            rows.append(row)
            report()
        bands.append(rows)
    for i in range(count):
        yield bands[i % len(BANDS)][i // len(BANDS)]

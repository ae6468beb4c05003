"""The benchmark that comes with the package: 1,000 generated 9×9 puzzles over the rating range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.stream import Wanted, first_rows

NAME = "benchmark"
FILE = Path(__file__).parent / "benchmark.csv.gz"

BANDS = ((0, 0, 2030), (1, 10, 2027), (11, 30, 2028), (31, 100, 2029), (101, None, 2026))
"""Lowest and highest rating of each fifth, and its seed: no two climb from the same puzzles."""

PUZZLES = 1000


def find_puzzles(data: Path) -> Path:
    """The puzzle file that `data` names: ``benchmark``, unless there is such a file here."""
    return FILE if str(data) == NAME and not data.exists() else data


def band_rows(band: int, count: int, workers: int = 1) -> Iterator[PuzzleRow]:
    """Make the first `count` rows of one of `BANDS` again."""
    low, high, seed = BANDS[band]
    wanted = Wanted(9, (3, 3), seed, None, low or None, high)
    return first_rows(wanted, count, workers)


def benchmark_rows(
    count: int = PUZZLES, workers: int = 1, report: Callable[[], None] = lambda: None
) -> Iterator[PuzzleRow]:
    """Make the first `count` rows of the benchmark again; `report` is called after each.

    Row i is of the band i mod 5, so that the first rows of the file have all of them.
    """
    bands: list[list[PuzzleRow]] = []
    for band in range(len(BANDS)):
        share = (count - band + len(BANDS) - 1) // len(BANDS)
        bands.append([])
        for row in band_rows(band, share, workers) if share else ():
            bands[band].append(row)
            report()
    for i in range(count):
        yield bands[i % len(BANDS)][i // len(BANDS)]

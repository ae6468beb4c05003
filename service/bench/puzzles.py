"""What is asked: puzzles with known answers, in a chosen mix of ratings."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

from eqr_core.data.benchmark import find_puzzles
from eqr_core.data.puzzles import PuzzleRow, read_puzzles
from eqr_core.errors import DataError

ALL = "all"

_PART = re.compile(r"(\d{1,9})(-(\d{1,9})?)?=(\d{1,6}(?:\.\d{1,6})?)")


@dataclass(frozen=True)
class Band:
    """Puzzles of a range of ratings, and how often one of them is asked."""

    name: str
    low: int
    high: int | None
    weight: float

    def holds(self, row: PuzzleRow) -> bool:
        """Whether `row` is one of them."""
        return self.low <= row.rating and (self.high is None or row.rating <= self.high)


EVERYTHING = (Band(ALL, 0, None, 1.0),)


def parse_mix(text: str | None) -> tuple[Band, ...]:
    """Bands of a text such as ``0=3,1-30=2,31-=1``; None: all ratings as they come.

    Weights are relative. DataError for a text of another form and for bands that overlap.
    """
    if text is None:
        return EVERYTHING
    bands = tuple(_band(part.strip()) for part in text.split(","))
    ordered = sorted(bands, key=lambda band: band.low)
    for one, after in pairwise(ordered):
        if one.high is None or one.high >= after.low:
            raise DataError(f"mix: the ratings {one.name} and {after.name} overlap")
    if not sum(band.weight for band in bands) > 0:
        raise DataError(f"mix: {text!r} has no weight above 0")
    return bands


def _band(part: str) -> Band:
    found = _PART.fullmatch(part)
    if not found:
        raise DataError(f"mix: {part!r} is not RATING=WEIGHT, LOW-HIGH=WEIGHT or LOW-=WEIGHT")
    low, dash, high, weight = found.groups()
    end = int(high) if high else None if dash else int(low)
    if end is not None and end < int(low):
        raise DataError(f"mix: {part!r} ends before it begins")
    return Band(part.partition("=")[0], int(low), end, float(weight))


def read_rows(data: Path, limit: int | None) -> list[PuzzleRow]:
    """The first `limit` rows of a puzzle file, or of the benchmark; DataError where none is."""
    rows = list(read_puzzles(find_puzzles(data), limit))
    if not rows:
        raise DataError(f"{data}: it holds no puzzles")
    return rows


@dataclass(frozen=True)
class Puzzle:
    """A puzzle, its answer as text, and the name of its band."""

    question: str
    answer: str
    band: str


def draw(rows: Sequence[PuzzleRow], bands: Sequence[Band], seed: int) -> Iterator[Puzzle]:
    """Puzzles without end: of a band drawn by weight the next in the file's order.

    DataError where a band holds none of `rows`.
    """
    lines = []
    for band in bands:
        kept = [row for row in rows if band.holds(row)]
        if not kept:
            raise DataError(f"mix: no puzzle has a rating of {band.name}")
        lines.append(cycle(kept))
    weights, source = [band.weight for band in bands], random.Random(seed)
    return _drawn(bands, lines, weights, source)


def _drawn(
    bands: Sequence[Band],
    lines: Sequence[Iterator[PuzzleRow]],
    weights: Sequence[float],
    source: random.Random,
) -> Iterator[Puzzle]:
    while True:
        (number,) = source.choices(range(len(bands)), weights)
        row = next(lines[number])
        yield Puzzle(row.question, row.answer, bands[number].name)

"""Sizes of grids as cards state them: ``9x9``, or ``5x5-60x60`` for every size between the two."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


def is_size(text: str) -> bool:
    """Whether `text` states a size, or a range whose first is in no way the greater."""
    ends = [SIZE.fullmatch(part) for part in text.split("-")]
    if len(ends) > 2 or None in ends:
        return False
    low, high = _ends(text)
    return all(least <= most for least, most in zip(low, high, strict=True))


def sides(size: str) -> tuple[int, int]:
    """Rows and columns of a size that is no range."""
    return _ends(size)[0]


def fits(sizes: Sequence[str], size: str) -> bool:
    """Whether `size` is one of `sizes`, or in a range of theirs."""
    wanted = _ends(size)[0]
    for low, high in map(_ends, sizes):
        if all(a <= b <= c for a, b, c in zip(low, wanted, high, strict=True)):
            return True
    return False


def named(sizes: Sequence[str]) -> list[str]:
    """The sizes that `sizes` name, the two ends of each range."""
    return list(dict.fromkeys(part for size in sizes for part in size.split("-")))


def count(sizes: Sequence[str]) -> int:
    """How many sizes there are in `sizes`, those in ranges included."""
    return sum((c - a + 1) * (d - b + 1) for (a, b), (c, d) in map(_ends, sizes))


def _ends(size: str) -> tuple[tuple[int, int], tuple[int, int]]:
    first, *last = size.split("-")
    low = tuple(map(int, first.split("x")))
    high = tuple(map(int, last[0].split("x"))) if last else low
    return (low[0], low[1]), (high[0], high[1])

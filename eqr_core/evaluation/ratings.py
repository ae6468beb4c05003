"""Classes of puzzles of like rating, each task's own: ratings count guesses, or steps of a path."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class RatingClasses:
    """Classes that end at each of `edges` (`Task.rating_edges`), and one above them.

    >>> RatingClasses((0, 10, 30)).names
    ('0', '1-10', '11-30', '>30')
    """

    edges: Sequence[int]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names, from the lowest rating."""
        firsts = (0, *(edge + 1 for edge in self.edges))
        bounded = zip(firsts, self.edges, strict=False)
        return (
            *(str(high) if low == high else f"{low}-{high}" for low, high in bounded),
            f">{self.edges[-1]}",
        )

    def name(self, rating: int) -> str:
        """The class of a rating."""
        return self.names[bisect_left(self.edges, rating)]

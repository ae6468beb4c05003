"""A fixed backtracking Sudoku solver: it counts solutions and rates puzzles by its guesses.

Between guesses it places naked and hidden singles until none is left, then branches on the cell
with the fewest candidates, the first of them, lowest digit first. A puzzle's rating is the
number of guesses until its solution is found, as the `rating` of Sudoku-Extreme is; 0 means that
singles alone solve it. Solvers that infer more between guesses rate lower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random


@dataclass(frozen=True)
class Search:
    """What a search found: up to `limit` solutions, row-major digits, and what it took."""

    solutions: tuple[tuple[int, ...], ...]
    guesses: int
    complete: bool
    """False when the guesses allowed ran out, so that there may be more solutions."""


class OutOfGuessesError(Exception):
    """The search reached the number of guesses that it was allowed."""


class SudokuSearch:
    """Depth-first search over boards of one box size; digits are bits, bit 0 is the digit 1."""

    def __init__(self, box: tuple[int, int]) -> None:
        height, width = box
        self.n = n = height * width
        self.full = (1 << n) - 1
        self.units = [
            (r, n + c, 2 * n + r // height * (n // width) + c // width)
            for r in range(n)
            for c in range(n)
        ]

    def run(
        self,
        digits: Sequence[int],
        limit: int = 2,
        max_guesses: int | None = None,
        random: Random | None = None,
    ) -> Search:
        """Search for up to `limit` solutions of `digits` [cells], 0 for a blank.

        With `random`, guesses try digits in random order, which samples solutions.
        """
        walk = _Walk(self, limit, max_guesses, random)
        board = Board.of(self, digits)
        if board is None:
            return Search((), 0, True)
        try:
            walk.down(board)
        except OutOfGuessesError:
            return Search(tuple(walk.solutions), walk.guesses, False)
        return Search(tuple(walk.solutions), walk.guesses, True)


class Board:
    """A partly filled board: the digit of each cell, the digits used by each unit."""

    __slots__ = ("cells", "open", "used")

    def __init__(self, cells: list[int], used: list[int], open_cells: list[int]) -> None:
        self.cells = cells
        self.used = used
        self.open = open_cells

    @classmethod
    def of(cls, search: SudokuSearch, digits: Sequence[int]) -> Board | None:
        """The board of `digits`; None where two equal clues share a unit."""
        used = [0] * (3 * search.n)
        for cell, digit in enumerate(digits):
            if digit:
                bit = 1 << (digit - 1)
                if any(used[unit] & bit for unit in search.units[cell]):
                    return None
                for unit in search.units[cell]:
                    used[unit] |= bit
        return cls(list(digits), used, [i for i, digit in enumerate(digits) if not digit])

    def copy(self) -> Board:
        return Board(self.cells.copy(), self.used.copy(), self.open)

    def candidates(self, search: SudokuSearch, cell: int) -> int:
        """Bits of the digits that no unit of `cell` holds yet."""
        row, column, box = search.units[cell]
        used = self.used
        return search.full & ~(used[row] | used[column] | used[box])

    def place(self, search: SudokuSearch, cell: int, bit: int) -> None:
        self.cells[cell] = bit.bit_length()
        for unit in search.units[cell]:
            self.used[unit] |= bit

    def propagate(self, search: SudokuSearch) -> bool:
        """Place singles until none is left; False on a contradiction."""
        while self.open:
            once, twice = [0] * len(self.used), [0] * len(self.used)
            naked = self._place_naked(search, once, twice)
            if naked is None:
                return False
            if naked:
                continue
            for held, seen in zip(self.used, once, strict=True):
                if held | seen != search.full:
                    return False
            hidden = self._place_hidden(search, once, twice)
            if hidden is None:
                return False
            if not hidden:
                return True
        return True

    def _place_naked(self, search: SudokuSearch, once: list[int], twice: list[int]) -> bool | None:
        """Place naked singles and note which digits each unit can still take, and how often."""
        used, full, units, cells = self.used, search.full, search.units, self.cells
        left = []
        for cell in self.open:
            row, column, box = units[cell]
            bits = full & ~(used[row] | used[column] | used[box])
            if bits & (bits - 1):
                twice[row] |= once[row] & bits
                once[row] |= bits
                twice[column] |= once[column] & bits
                once[column] |= bits
                twice[box] |= once[box] & bits
                once[box] |= bits
                left.append(cell)
            elif bits:
                cells[cell] = bits.bit_length()
                used[row] |= bits
                used[column] |= bits
                used[box] |= bits
            else:
                return None
        placed = len(left) < len(self.open)
        self.open = left
        return placed

    def _place_hidden(self, search: SudokuSearch, once: list[int], twice: list[int]) -> bool | None:
        """Place digits that a unit can take in one cell only."""
        used, full, units, cells = self.used, search.full, search.units, self.cells
        single = [one & ~two for one, two in zip(once, twice, strict=True)]
        left = []
        for cell in self.open:
            row, column, box = units[cell]
            bits = single[row] | single[column] | single[box]
            bits &= full & ~(used[row] | used[column] | used[box])
            if not bits:
                left.append(cell)
            elif bits & (bits - 1):
                return None
            else:
                cells[cell] = bits.bit_length()
                used[row] |= bits
                used[column] |= bits
                used[box] |= bits
        placed = len(left) < len(self.open)
        self.open = left
        return placed


class _Walk:
    """One depth-first walk: what it has found and spent."""

    def __init__(
        self, search: SudokuSearch, limit: int, max_guesses: int | None, random: Random | None
    ) -> None:
        self.search = search
        self.limit = limit
        self.max_guesses = max_guesses
        self.random = random
        self.guesses = 0
        self.solutions: list[tuple[int, ...]] = []

    def down(self, board: Board) -> None:
        if not board.propagate(self.search):
            return
        if not board.open:
            self.solutions.append(tuple(board.cells))
            return
        cell, bits = self._choose(board)
        for bit in self._order(bits):
            if self.guesses == self.max_guesses:
                raise OutOfGuessesError
            self.guesses += 1
            branch = board.copy()
            branch.place(self.search, cell, bit)
            branch.open = [other for other in board.open if other != cell]
            self.down(branch)
            if len(self.solutions) >= self.limit:
                return

    def _choose(self, board: Board) -> tuple[int, int]:
        best, best_bits, fewest = -1, 0, self.search.n + 1
        for cell in board.open:
            bits = board.candidates(self.search, cell)
            count = bits.bit_count()
            if count < fewest:
                best, best_bits, fewest = cell, bits, count
                if count == 2:
                    break
        return best, best_bits

    def _order(self, bits: int) -> Iterator[int]:
        choices = [1 << i for i in range(self.search.n) if bits >> i & 1]
        if self.random is not None:
            self.random.shuffle(choices)
        return iter(choices)


@lru_cache(maxsize=8)
def search_for(box: tuple[int, int]) -> SudokuSearch:
    """The search over boards whose boxes have `box[0]` rows and `box[1]` columns."""
    return SudokuSearch(box)


def rating(box: tuple[int, int], digits: Sequence[int]) -> int:
    """Guesses until the first solution of `digits` [cells] is found."""
    return search_for(box).run(digits, limit=1).guesses

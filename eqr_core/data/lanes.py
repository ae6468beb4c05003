"""The backtracking search of `backtracking`, on many Sudokus at once with numpy.

Same inference, same branching, same count of guesses; a board is a column of an array, so that
one operation on digit bits serves all boards. A board that is done makes room for the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Boards = npt.NDArray[np.uint8]
"""Digits of whole boards, row-major, 0 for a blank: uint8 [boards, cells]."""

Bits = npt.NDArray[Any]
"""Sets of digits, bit 0 is the digit 1: uint16, at 16×16 uint32."""

Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

LANES = 768
"""Boards at work together: more amortise the calls better, fewer stay in the cache."""


@dataclass(frozen=True)
class Searches:
    """What the searches of many boards found and spent."""

    count: npt.NDArray[np.uint8]
    """Solutions found, the search's limit at most, uint8 [boards]."""
    solutions: Boards
    """The first `count` of them, uint8 [boards, limit, cells]; zeros beyond."""
    rating: npt.NDArray[np.int32]
    """Guesses until the first solution was found, or in all without one, int32 [boards]."""
    guesses: npt.NDArray[np.int32]
    """Guesses in all, int32 [boards]."""
    complete: Flags
    """False where the guesses allowed ran out, bool [boards]."""


def search(
    box: tuple[int, int],
    boards: Boards,
    limit: int = 2,
    max_guesses: int | None = None,
    but: tuple[Indices, Indices] | None = None,
) -> Searches:
    """Search each of `boards` for up to `limit` solutions.

    `but` names a cell and a digit for each board, int [boards] each: only solutions with another
    digit there are looked for.
    """
    return _Lanes(box, boards, limit, max_guesses, but).run()


class _Lanes:
    def __init__(
        self,
        box: tuple[int, int],
        boards: Boards,
        limit: int,
        max_guesses: int | None,
        but: tuple[Indices, Indices] | None,
    ) -> None:
        self.box = box
        self.n = n = box[0] * box[1]
        self.cells = n * n
        self.dtype: Any = np.uint16 if n < 16 else np.uint32
        self.full = self.dtype((1 << n) - 1)
        self.boards = boards
        self.but = but
        self.limit = limit
        self.max_guesses = np.iinfo(np.int32).max if max_guesses is None else max_guesses
        rows = len(boards)
        self.count = np.zeros(rows, np.uint8)
        self.solutions = np.zeros((rows, limit, self.cells), np.uint8)
        self.rating = np.zeros(rows, np.int32)
        self.guesses = np.zeros(rows, np.int32)
        self.complete = np.ones(rows, np.bool_)
        self.next = 0
        self._open(min(LANES, rows))

    def _open(self, lanes: int) -> None:
        """Room for `lanes` boards; the first ones move in."""
        self.board = np.arange(lanes)
        self.value = np.empty((self.cells, lanes), self.dtype)
        self.banned = np.zeros((self.cells, lanes), self.dtype)
        self.depth = np.zeros(lanes, np.intp)
        self.saved = np.empty((lanes, self.cells, self.cells), self.dtype)
        self.saved_cell = np.empty((lanes, self.cells), np.intp)
        self.saved_bits = np.empty((lanes, self.cells), self.dtype)
        self._seat(np.arange(lanes))

    def _seat(self, lanes: Indices) -> None:
        """Put the next boards into `lanes`."""
        board = np.arange(self.next, self.next + len(lanes))
        self.next += len(lanes)
        digits = self.boards[board].T.astype(self.dtype)
        self.board[lanes] = board
        self.value[:, lanes] = (self.dtype(1) << digits) >> 1
        self.depth[lanes] = 0
        if self.but is not None:
            cell, digit = self.but[0][board], self.but[1][board]
            self.banned[:, lanes] = 0
            self.banned[cell, lanes] = self.dtype(1) << (digit - 1).astype(self.dtype)

    def run(self) -> Searches:
        while self.board.size:
            dead, solved, stuck, candidates = self._infer()
            done = np.zeros_like(dead)
            if stuck.any():
                done |= self._guess(stuck.nonzero()[0], candidates)
            if solved.any():
                done |= self._keep(solved.nonzero()[0])
                dead |= solved & ~done
            if dead.any():
                done |= self._back(dead.nonzero()[0])
            if done.any():
                self._replace(done)
        return Searches(self.count, self.solutions, self.rating, self.guesses, self.complete)

    def _infer(self) -> tuple[Flags, Flags, Flags, Bits]:
        """One round of naked and hidden singles in every lane.

        Returns which lanes are contradictory, solved, or placed no digit, bool [lanes], and the
        candidates before that, [cells, lanes].
        """
        (height, width), n = self.box, self.n
        lanes = self.value.shape[1]
        grid = self.value.reshape(n, n, lanes)
        by_box = (n // height, height, n // width, width, lanes)
        union = np.bitwise_or.reduce
        rows, columns = union(grid, axis=1), union(grid, axis=0)
        boxes = union(union(grid.reshape(by_box), axis=3), axis=1)

        candidates = rows[:, None] | columns
        candidates.reshape(by_box)[...] |= boxes[:, None, :, None]
        if self.but is not None:
            candidates |= self.banned.reshape(grid.shape)
        np.bitwise_xor(candidates, self.full, out=candidates)
        candidates &= self.full
        is_open = grid == 0
        candidates *= is_open

        once_row, any_row = _once(candidates.swapaxes(0, 1))
        once_column, any_column = _once(candidates)
        by_place = candidates.reshape(by_box).transpose(1, 3, 0, 2, 4).reshape(n, *boxes.shape)
        once_box, any_box = _once(by_place)
        place = once_row[:, None] | once_column
        place.reshape(by_box)[...] |= once_box[:, None, :, None]
        place &= candidates
        several = candidates - self.dtype(1)
        several &= candidates
        np.copyto(place, candidates, where=several == 0)

        # Contradictions: two digits that need one cell, a cell or a unit that is left without,
        # and a digit twice in a unit: then the unit's digits are fewer than its filled cells.
        wrong = (place & (place - self.dtype(1))) != 0
        wrong |= is_open & (candidates == 0)
        dead: Flags = np.logical_or.reduce(wrong.reshape(self.cells, lanes), axis=0)
        whole = np.bitwise_and.reduce(rows | any_row, axis=0)
        whole &= np.bitwise_and.reduce(columns | any_column, axis=0)
        whole &= np.bitwise_and.reduce(boxes | any_box, axis=(0, 1))
        dead |= whole != self.full
        blanks = np.add.reduce(is_open.reshape(self.cells, lanes), axis=0, dtype=np.uint16)
        for digits in (rows, columns, boxes.reshape(n, lanes)):
            held = np.add.reduce(np.bitwise_count(digits), axis=0, dtype=np.uint16)
            dead |= held != self.cells - blanks

        grid |= place
        solved = (blanks == 0) & ~dead
        stuck = (union(place.reshape(self.cells, lanes), axis=0) == 0) & ~(dead | solved)
        return dead, solved, stuck, candidates.reshape(self.cells, lanes)

    def _guess(self, lanes: Indices, candidates: Bits) -> Flags:
        """Branch on the first cell with the fewest candidates; which lanes may guess no more."""
        bits = candidates[:, lanes]
        counts = np.bitwise_count(bits)
        counts[bits == 0] = self.n + 1
        cell = counts.argmin(axis=0)
        depth = self.depth[lanes]
        self.saved[lanes, depth] = self.value[:, lanes].T
        self.saved_cell[lanes, depth] = cell
        self.saved_bits[lanes, depth] = bits[cell, np.arange(len(lanes))]
        self.depth[lanes] += 1
        return self._branch(lanes)

    def _branch(self, lanes: Indices) -> Flags:
        """Take the lowest digit left of the last branching of each lane."""
        top = self.depth[lanes] - 1
        cell, bits = self.saved_cell[lanes, top], self.saved_bits[lanes, top]
        rest = bits & (bits - self.dtype(1))
        self.value[:, lanes] = self.saved[lanes, top].T
        self.value[cell, lanes] = bits ^ rest
        self.saved_bits[lanes, top] = rest
        self.depth[lanes] -= rest == 0
        board = self.board[lanes]
        over = self.guesses[board] >= self.max_guesses
        self.complete[board] = ~over
        self.guesses[board] += ~over
        out = np.zeros(len(self.board), np.bool_)
        out[lanes] = over
        return out

    def _back(self, lanes: Indices) -> Flags:
        """Return to the last branching; which lanes have none left, or may guess no more."""
        ended = self.depth[lanes] == 0
        done = self._branch(lanes[~ended])
        done[lanes[ended]] = True
        return done

    def _keep(self, lanes: Indices) -> Flags:
        """Write down the solutions that `lanes` hold; which lanes have enough of them."""
        board = self.board[lanes]
        digits = np.bitwise_count(self.value[:, lanes] - self.dtype(1)) + 1
        self.solutions[board, self.count[board]] = digits.T
        first = self.count[board] == 0
        self.rating[board[first]] = self.guesses[board[first]]
        self.count[board] += 1
        out = np.zeros(len(self.board), np.bool_)
        out[lanes] = self.count[board] >= self.limit
        return out

    def _replace(self, done: Flags) -> None:
        """Give lanes that are done to the next boards; close them where there are none."""
        board = self.board[done]
        none = board[self.count[board] == 0]
        self.rating[none] = self.guesses[none]
        waiting = len(self.boards) - self.next
        lanes = done.nonzero()[0]
        if waiting:
            self._seat(lanes[:waiting])
            lanes = lanes[waiting:]
        if not lanes.size:
            return
        kept = np.setdiff1d(np.arange(len(self.board)), lanes)
        self.board, self.depth = self.board[kept], self.depth[kept]
        self.value = np.ascontiguousarray(self.value[:, kept])
        self.banned = np.ascontiguousarray(self.banned[:, kept])
        deepest = int(self.depth.max(initial=0))
        self.saved = _packed(self.saved, kept, deepest)
        self.saved_cell = self.saved_cell[kept]
        self.saved_bits = self.saved_bits[kept]


def _packed(saved: Bits, kept: Indices, deepest: int) -> Bits:
    """The frames in use of the lanes that stay."""
    packed = np.empty((len(kept), *saved.shape[1:]), saved.dtype)
    packed[:, :deepest] = saved[kept, :deepest]
    return packed


def _once(candidates: Bits) -> tuple[Bits, Bits]:
    """Digits that exactly one, and that any, of the cells [cell of the unit, ...] can take."""
    once = candidates[0].copy()
    twice = np.zeros_like(once)
    both = np.empty_like(once)
    for cell in candidates[1:]:
        np.bitwise_and(once, cell, out=both)
        twice |= both
        once |= cell
    return once & ~twice, once

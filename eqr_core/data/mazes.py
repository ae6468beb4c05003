"""Random mazes with exactly one shortest path, its length drawn evenly from a range.

`perfect` mazes are trees of corridors: rooms on every other row and column, joined by the growing
tree method, which is the recursive backtracker where it always goes on from the newest room; how
often it does is drawn for each maze. Where a side is even, one row or column more than needed is
wall. `walls` mazes have every cell walled at random, as often as is drawn for each maze.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

import numpy as np

from eqr_core.data.maze_paths import Board
from eqr_core.data.maze_symmetry import canonical_mazes, canonical_walls
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.units import Unit
from eqr_core.errors import DataError
from eqr_core.tasks.maze import CHARACTERS, GOAL, MAX_SIDE, OPEN, PATH, START, WALL, Maze

Kind = Literal["perfect", "walls"]

UNIT_ROWS = 64
"""Mazes of one unit of a stream."""

ATTEMPTS = 2000
"""Boards tried for a path of the length drawn before the generator gives up."""

STARTS = 3
"""Starts tried on each board."""

NEWEST = (0.5, 1.0)
"""How often a perfect maze grows from its newest room."""

WALLED = (0.2, 0.45)
"""Share of cells that are wall."""

MANY_MAZES = 81
"""Cells from which no two mazes of a stream have the same walls, up to symmetry."""


@dataclass(frozen=True)
class WantedMazes:
    """Which mazes a stream is made of."""

    rows: int
    columns: int
    kind: Kind = "perfect"
    seed: int = 0
    min_path: int | None = None
    """Fewest steps from S to G; None: half of the longer side."""
    max_path: int | None = None
    """Most steps; None: a sixth of the cells in a perfect maze, else two thirds of both sides."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"kind is {self.kind!r}; it must be {' or '.join(get_args(Kind))}")
        least = 3 if self.kind == "perfect" else 1
        for name, side in (("rows", self.rows), ("columns", self.columns)):
            if not least <= side <= MAX_SIDE:
                raise DataError(f"{name} is {side}; it must be from {least} to {MAX_SIDE}")
        if max(self.rows, self.columns) < 5:
            raise DataError(f"{self.rows}x{self.columns} cells; the longer side must be 5 at least")
        if not 0 <= self.seed < 2**31:
            raise DataError(f"seed is {self.seed}; it must be from 0 to {2**31 - 1}")
        low, high = self.paths
        for name, value in (("min_path", low), ("max_path", high)):
            if not 1 <= value <= self.rows * self.columns:
                limit = self.rows * self.columns
                raise DataError(f"{name} is {value}; it must be from 1 to {limit}, the cells")
        if low > high:
            raise DataError(f"min_path is {low}; max_path is {high}, which is less")

    @property
    def paths(self) -> tuple[int, int]:
        """Fewest and most steps from S to G."""
        low = max(self.rows, self.columns) // 2
        cells = self.rows * self.columns
        sides = self.rows + self.columns
        most = cells // 6 if self.kind == "perfect" else sides * 2 // 3
        low = min(low, self.max_path or low) if self.min_path is None else self.min_path
        return low, max(low, most) if self.max_path is None else self.max_path

    def __str__(self) -> str:
        low, high = self.paths
        return f"{self.rows}x{self.columns} {self.kind} mazes with paths of {low} to {high} steps"

    def unit(self, number: int) -> Unit:
        """The mazes of one unit of the stream, and what no two of a stream may share."""
        random = Random(f"{self.rows}x{self.columns}/{self.kind}/{self.seed}/{number}")
        rows = [self._row(random) for _ in range(UNIT_ROWS)]
        task = Maze(self.rows, self.columns)
        questions = maze_tokens([row.question for row in rows])
        named = canonical_walls if task.tokens >= MANY_MAZES else canonical_mazes
        for key, row in zip(named(task, questions), rows, strict=True):
            yield key.decode("latin-1"), row

    def _row(self, random: Random) -> PuzzleRow:
        length = random.randint(*self.paths)
        for _ in range(ATTEMPTS):
            board = (_perfect if self.kind == "perfect" else _walls)(
                self.rows, self.columns, random
            )
            for start in _starts(board, random):
                steps, ways = board.explore(start)
                goals = [
                    place for place, far in enumerate(steps) if far == length and ways[place] == 1
                ]
                if goals:
                    goal = random.choice(goals)
                    path = board.between(goal, steps)
                    return self._text(board, start, goal, path)
        raise DataError(
            f"found no {self}: of {ATTEMPTS} tried none has one shortest path of {length}"
        )

    def _text(self, board: Board, start: int, goal: int, path: list[int]) -> PuzzleRow:
        cells = [OPEN if is_open else WALL for is_open in board.cells]
        cells[start], cells[goal] = START, GOAL
        question = self._rows(cells, board.width)
        for place in path:
            cells[place] = PATH
        answer = self._rows(cells, board.width)
        source = f"{self.kind}_{self.rows}x{self.columns}"
        return PuzzleRow(source, question, answer, len(path) + 1)

    def _rows(self, cells: list[str], width: int) -> str:
        lines = ["".join(cells[r * width + 1 : (r + 1) * width - 1]) for r in range(self.rows + 2)]
        return "/".join(lines[1:-1])


def maze_tokens(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Tokens of the texts of mazes of one size, uint8 [rows, tokens]; 0 for unknown characters."""
    table = np.zeros(128, np.uint8)
    for token, character in enumerate(CHARACTERS, start=1):
        table[ord(character)] = token
    joined = "".join(texts).replace("/", "").encode("ascii", errors="replace")
    return table[np.frombuffer(joined, np.uint8)].reshape(len(texts), -1)


def _starts(board: Board, random: Random) -> Iterator[int]:
    """Random starts, and at last an end of a long path."""
    places = board.open_cells()
    if len(places) < 2:
        return
    place = 0
    for _ in range(STARTS):
        place = random.choice(places)
        yield place
    steps, _ = board.explore(place)
    yield max(places, key=lambda one: steps[one])


def _perfect(rows: int, columns: int, random: Random) -> Board:
    board = Board.closed(rows, columns)
    down, across = (rows - 1) // 2, (columns - 1) // 2
    top = 1 + (random.randrange(2) if rows % 2 == 0 else 0)
    left = 1 + (random.randrange(2) if columns % 2 == 0 else 0)
    newest = random.uniform(*NEWEST)
    # Rooms in the middle of a frame, so that a neighbour beyond the edge counts as joined.
    joined = bytearray(b"\1" * ((down + 2) * (across + 2)))
    for r in range(1, down + 1):
        joined[r * (across + 2) + 1 : r * (across + 2) + 1 + across] = bytes(across)
    sides = ((-1, -1), (1, 1), (-across - 2, -board.width), (across + 2, board.width))

    def place(room: int) -> int:
        r, c = divmod(room, across + 2)
        return board.at(top + 2 * (r - 1), left + 2 * (c - 1))

    first = random.randrange(1, down + 1) * (across + 2) + random.randrange(1, across + 1)
    joined[first] = board.cells[place(first)] = 1
    growing = [first]
    while growing:
        at = len(growing) - 1 if random.random() < newest else random.randrange(len(growing))
        room = growing[at]
        free = [(room + step, half) for step, half in sides if not joined[room + step]]
        if not free:
            growing.pop(at)
            continue
        other, half = random.choice(free)
        joined[other] = board.cells[place(other)] = board.cells[place(room) + half] = 1
        growing.append(other)
    return board


def _walls(rows: int, columns: int, random: Random) -> Board:
    board = Board.closed(rows, columns)
    walled = random.uniform(*WALLED)
    for r in range(rows):
        first = board.at(r, 0)
        board.cells[first : first + columns] = bytes(
            random.random() >= walled for _ in range(columns)
        )
    return board

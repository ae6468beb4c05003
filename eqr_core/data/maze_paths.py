"""Shortest paths in mazes as flat boards with a wall around them, fast enough for whole files."""

from __future__ import annotations

from dataclasses import dataclass

MANY = 2
"""Ways to a cell are counted up to here."""


@dataclass(frozen=True)
class Board:
    """Which cells of a maze are open, 1 or 0, with a frame of walls.

    The cell at row r and column c, from 0, stands at (r + 1) · width + c + 1.
    """

    cells: bytearray
    width: int

    @staticmethod
    def closed(rows: int, columns: int) -> Board:
        """A board without an open cell."""
        return Board(bytearray((rows + 2) * (columns + 2)), columns + 2)

    def at(self, row: int, column: int) -> int:
        """The place of a cell."""
        return (row + 1) * self.width + column + 1

    def open_cells(self) -> list[int]:
        """Places of the open cells, in order."""
        return [place for place, is_open in enumerate(self.cells) if is_open]

    def explore(self, start: int) -> tuple[list[int], list[int]]:
        """Steps from `start` to each place, −1 where there is no way, and shortest ways, 0 to 2."""
        cells, width = self.cells, self.width
        steps, ways = [-1] * len(cells), [0] * len(cells)
        steps[start], ways[start] = 0, 1
        line = [start]
        for place in line:
            further = steps[place] + 1
            for neighbour in (place - 1, place + 1, place - width, place + width):
                if not cells[neighbour]:
                    continue
                if steps[neighbour] < 0:
                    steps[neighbour], ways[neighbour] = further, ways[place]
                    line.append(neighbour)
                elif steps[neighbour] == further:
                    ways[neighbour] = MANY
        return steps, ways

    def between(self, goal: int, steps: list[int]) -> list[int]:
        """Places between the start that `steps` count from and `goal`, on one shortest path."""
        path = []
        place = goal
        for left in range(steps[goal] - 1, 0, -1):
            around = (place - 1, place + 1, place - self.width, place + self.width)
            place = next(neighbour for neighbour in around if steps[neighbour] == left)
            path.append(place)
        return path

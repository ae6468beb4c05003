"""Sudoku files: digits without separators, `canonical` forms, the generator of `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eqr_core.data.canonical import LARGEST, canonical_grids, canonical_puzzles, keys
from eqr_core.data.form import Flags, Form, Keys
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.lanes import search
from eqr_core.data.puzzles import PuzzleRow, digit_tokens
from eqr_core.errors import DataError
from eqr_core.tasks.base import Task, Tokens
from eqr_core.tasks.sudoku import BOXES, DIGITS, Sudoku

SIZES = {n * n: n for n in BOXES}
"""Side of a grid, for each number of cells."""

MOST_GUESSES = 20_000
"""Guesses after which a search for a second solution is given up; 16×16 puzzles come near."""


class SudokuForm(Form):
    """Sudokus of all sizes; the task's tokens are 1 for a blank and d + 1 for the digit d."""

    def __init__(self) -> None:
        super().__init__("sudoku")

    def task_of(self, question: str) -> Task:
        if len(question) not in SIZES:
            known = ", ".join(map(str, SIZES))
            raise DataError(f"the question has {len(question)} cells; a Sudoku has {known}")
        return Sudoku(BOXES[SIZES[len(question)]])

    def tokens(self, task: Task, texts: Sequence[str]) -> Tokens:
        return digit_tokens(list(texts))

    def texts(self, task: Task, tokens: Tokens) -> list[str]:
        symbols = np.frombuffer((" ." + DIGITS).encode("ascii"), np.uint8)
        return [symbols[row].tobytes().decode("ascii") for row in tokens]

    def fault(self, task: Task, row: PuzzleRow) -> str | None:
        digits = DIGITS[: task.rows]
        for name, text, allowed in (
            ("question", row.question, digits + ".0"),
            ("answer", row.answer, digits),
        ):
            if len(text) != task.tokens:
                return (
                    f"the {name} has {len(text)} cells; "
                    f"the first question has {task.tokens}, and all must be of one size"
                )
            if wrong := set(text) - set(allowed):
                return f"{min(wrong)!r} stands in the {name}, not {allowed}"
        for clue, value in zip(row.question, row.answer, strict=True):
            if clue not in (".", "0", value):
                return f"the answer has {value} where the clue is {clue}"
        return None

    def limits(self, task: Task) -> tuple[tuple[int, int], tuple[int, int]]:
        return (1, task.rows + 1), (2, task.rows + 1)

    def broken(self, task: Task, question: Tokens, answer: Tokens) -> Flags:
        bad = _unsolved(answer)
        bad |= ((question != 1) & (question != answer)).any(1)
        return bad

    def several(self, task: Task, question: Tokens) -> tuple[Flags, Flags]:
        found = search(_box(task), question - 1, 2, MOST_GUESSES)
        return found.count > 1, ~found.complete & (found.count < 2)

    def grid_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys | None:
        """Solution grids; None at 16×16."""
        if task.rows > LARGEST:
            return None
        return keys(canonical_grids(_box(task), answer - 1))

    def puzzle_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys | None:
        """Puzzles; None at 16×16."""
        if task.rows > LARGEST:
            return None
        return keys(canonical_puzzles(_box(task), question - 1, answer - 1))

    def generate(
        self, task: Task, count: int, seed: int, options: Mapping[str, object]
    ) -> Iterator[PuzzleRow]:
        """`options`: `clues`, the fewest and most clues; without, puzzles are minimal."""
        if unknown := sorted(set(options) - {"clues"}):
            raise DataError(f"generator.{unknown[0]}: the generator of Sudokus has clues alone")
        return generate_sudoku(Sudoku(_box(task)), count, seed, _clues(options.get("clues")))


def _box(task: Task) -> tuple[int, int]:
    return BOXES[task.rows]


def _clues(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and [type(count) for count in value] == [int, int]:
        return value[0], value[1]
    raise DataError(f"generator.clues is {value!r}; it must be two whole numbers")


def _unsolved(answer: Tokens) -> Flags:
    """Whether rows, columns or boxes of `answer`, tokens [rows, cells], repeat a digit, [rows]."""
    task = Sudoku(BOXES[SIZES[answer.shape[1]]])
    grid = answer.reshape(len(answer), *task.layout.axes[:4])
    units = (grid, grid.transpose(0, 3, 4, 1, 2), grid.transpose(0, 1, 3, 2, 4))
    digits = np.arange(2, task.n + 2, dtype=np.uint8)
    bad = np.zeros(len(answer), dtype=np.bool_)
    for unit in units:
        sets = np.sort(unit.reshape(len(answer), task.n, task.n), axis=-1)
        bad |= (sets != digits).any((1, 2))
    return bad

"""Random Sudoku puzzles with exactly one solution, minimal or of a given number of clues."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from eqr_core.data.backtracking import SudokuSearch, rating, search_for
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import DIGITS, Sudoku

FEWEST_CLUES = {4: 4, 6: 8, 9: 17, 16: 55}
"""The fewest clues of any known puzzle with one solution, for each grid size."""

ATTEMPTS = 2000
"""Puzzles tried for one that fits before the generator gives up."""

FILL_GUESSES = 2000
"""Guesses of one attempt to fill an empty board; a bad start is cheaper to leave than to mend."""

REMOVAL_GUESSES = 400
"""Guesses to show that a clue may go. Only 16×16 boards come near: there the clue then stays."""


def generate_sudoku(
    task: Sudoku,
    count: int,
    seed: int,
    clues: int | tuple[int, int] | None = None,
    min_rating: int | None = None,
    max_rating: int | None = None,
) -> Iterator[PuzzleRow]:
    """Yield `count` different puzzles of one solution; the same arguments give the same puzzles.

    Without `clues` each puzzle is minimal: no clue can be left out (at 16×16 a clue may stay
    whose test took too long). With a number, or a range from which each puzzle draws one, it has
    that many clues. `min_rating` and `max_rating` bound the guesses that the rating solver
    (`backtracking`) needs. `source` is ``generated_NxN``. DataError where nothing fits.
    """
    low, high = _clue_range(task, clues)
    if count < 1:
        raise DataError(f"count is {count}; it must be at least 1")
    random = Random(f"{task.n}/{seed}")
    search = search_for(task.box)
    seen: set[str] = set()
    for number in range(count):
        for _ in range(ATTEMPTS):
            wanted = random.randint(low, high)
            answer = _full_board(search, random)
            question = _remove_clues(search, answer, wanted, random)
            text = _text(question)
            fits = clues is None or sum(map(bool, question)) == wanted
            if not fits or text in seen:
                continue
            guesses = rating(task.box, question)
            if (min_rating or 0) <= guesses and (max_rating is None or guesses <= max_rating):
                break
        else:
            raise DataError(
                f"found {number} of {count} different {task.size} puzzles with clues="
                f"{clues}, min_rating={min_rating}, max_rating={max_rating}: none of the last "
                f"{ATTEMPTS} tried fits"
            )
        seen.add(text)
        yield PuzzleRow(f"generated_{task.size}", text, _text(answer), guesses)


def _clue_range(task: Sudoku, clues: int | tuple[int, int] | None) -> tuple[int, int]:
    if clues is None:
        return 0, 0
    low, high = (clues, clues) if isinstance(clues, int) else clues
    least, most = FEWEST_CLUES.get(task.n, 1), task.tokens - 1
    if not least <= low <= high <= most:
        raise DataError(
            f"clues is {low} to {high}; a {task.size} puzzle takes a range within {least} to {most}"
        )
    return low, high


def _full_board(search: SudokuSearch, random: Random) -> list[int]:
    """A random full board: a random first row, then a search in random order."""
    while True:
        board = [0] * (search.n * search.n)
        board[: search.n] = random.sample(range(1, search.n + 1), search.n)
        found = search.run(board, limit=1, max_guesses=FILL_GUESSES, random=random)
        if found.solutions:
            return list(found.solutions[0])


def _remove_clues(
    search: SudokuSearch, answer: list[int], wanted: int, random: Random
) -> list[int]:
    """Remove clues in random order while the solution stays the only one."""
    question = answer.copy()
    left = len(question)
    for cell in random.sample(range(len(question)), len(question)):
        if left <= wanted:
            break
        question[cell] = 0
        if _has_one_solution(search, question, cell, answer[cell]):
            left -= 1
        else:
            question[cell] = answer[cell]
    return question


def _has_one_solution(search: SudokuSearch, question: list[int], cell: int, digit: int) -> bool:
    """Whether no other digit at `cell` has a solution, knowing that `digit` has exactly one."""
    for other in range(1, search.n + 1):
        if other == digit:
            continue
        question[cell] = other
        found = search.run(question, limit=1, max_guesses=REMOVAL_GUESSES)
        if found.solutions or not found.complete:
            question[cell] = 0
            return False
    question[cell] = 0
    return True


def _text(digits: list[int]) -> str:
    return "".join(DIGITS[digit - 1] if digit else "." for digit in digits)

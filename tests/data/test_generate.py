from __future__ import annotations

from itertools import islice

import pytest

from eqr_core.data.backtracking import rating, search_for
from eqr_core.data.generate import generate_sudoku
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import DIGITS, Sudoku

BOX = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
KNOWN = (
    "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    "812753649943682175675491283154237896369845721287169534521974368438526917796318452",
)


def digits(text: str) -> list[int]:
    return [DIGITS.find(char) + 1 for char in text]


def count_by_trying(n: int, box: tuple[int, int], cells: list[int], limit: int = 2) -> int:
    """Solutions counted without any inference, as a check on the search's inference."""
    if 0 not in cells:
        return 1
    at = cells.index(0)
    r, c = divmod(at, n)
    found = 0
    for digit in range(1, n + 1):
        clash = any(
            cells[i * n + j] == digit
            for i in range(n)
            for j in range(n)
            if i == r or j == c or (i // box[0] == r // box[0] and j // box[1] == c // box[1])
        )
        if not clash:
            cells[at] = digit
            found += count_by_trying(n, box, cells, limit - found)
            cells[at] = 0
            if found >= limit:
                break
    return found


def test_the_known_hard_puzzle_has_its_one_solution() -> None:
    found = search_for((3, 3)).run(digits(KNOWN[0]))
    assert found.solutions == (tuple(digits(KNOWN[1])),)
    assert found.complete
    assert found.guesses > 10


def test_all_288_boards_of_4x4_are_counted() -> None:
    assert len(search_for((2, 2)).run([0] * 16, limit=1000).solutions) == 288


def test_a_search_stops_at_its_limit_and_says_so_when_guesses_run_out() -> None:
    assert len(search_for((2, 2)).run([0] * 16, limit=5).solutions) == 5
    short = search_for((3, 3)).run([0] * 81, limit=10, max_guesses=3)
    assert not short.complete
    assert short.guesses == 3


@pytest.mark.parametrize("clues", [{0: 1, 1: 1}, {0: 1, 4: 1}, {0: 1, 5: 1}])
def test_clues_that_contradict_have_no_solution(clues: dict[int, int]) -> None:
    cells = [clues.get(i, 0) for i in range(16)]
    assert search_for((2, 2)).run(cells).solutions == ()


@pytest.mark.parametrize("n", [4, 6])
def test_the_search_counts_as_plain_trying_does(n: int) -> None:
    for row in generate_sudoku(Sudoku(BOX[n]), 10, seed=5):
        cells = digits(row.question)
        clue = next(i for i, digit in enumerate(cells) if digit)
        for removed in (None, clue):
            if removed is not None:
                cells[removed] = 0
            counted = count_by_trying(n, BOX[n], cells.copy())
            assert len(search_for(BOX[n]).run(cells).solutions) == counted


@pytest.mark.parametrize(("n", "count"), [(4, 60), (6, 30), (9, 3)])
def test_puzzles_are_minimal_and_have_one_solution(n: int, count: int) -> None:
    task = Sudoku(BOX[n])
    rows = list(generate_sudoku(task, count, seed=1))
    assert len({row.question for row in rows}) == count
    for row in rows:
        cells = digits(row.question)
        found = search_for(task.box).run(cells)
        assert found.solutions == (tuple(digits(row.answer)),)
        assert row.source == f"generated_{n}x{n}"
        assert row.rating == rating(task.box, cells) <= found.guesses
        for i in range(len(cells)):
            if cells[i]:
                fewer = [*cells[:i], 0, *cells[i + 1 :]]
                assert len(search_for(task.box).run(fewer).solutions) == 2


def test_a_seed_names_its_puzzles_and_a_shorter_run_is_a_prefix() -> None:
    task = Sudoku((2, 3))
    rows = list(generate_sudoku(task, 8, seed=3))
    assert rows == list(generate_sudoku(task, 8, seed=3))
    assert rows[:4] == list(generate_sudoku(task, 4, seed=3))
    assert rows != list(generate_sudoku(task, 8, seed=4))


def test_clue_counts_are_kept() -> None:
    task = Sudoku((2, 2))
    counts = {
        sum(map(bool, digits(row.question)))
        for row in generate_sudoku(task, 60, seed=1, clues=(4, 6))
    }
    assert counts == {4, 5, 6}
    (row,) = generate_sudoku(Sudoku((3, 3)), 1, seed=1, clues=40)
    assert sum(map(bool, digits(row.question))) == 40


def test_min_rating_is_kept() -> None:
    rows = list(generate_sudoku(Sudoku((3, 3)), 3, seed=2, min_rating=4))
    assert all(row.rating >= 4 for row in rows)


def test_16x16_puzzles_have_one_solution() -> None:
    task = Sudoku((4, 4))
    (row,) = generate_sudoku(task, 1, seed=1, clues=160)
    found = search_for(task.box).run(digits(row.question))
    assert found.solutions == (tuple(digits(row.answer)),)


@pytest.mark.parametrize("clues", [3, 16, (5, 4), (2, 6)])
def test_impossible_clue_counts_are_refused(clues: int | tuple[int, int]) -> None:
    with pytest.raises(DataError, match="clues is"):
        next(generate_sudoku(Sudoku((2, 2)), 1, seed=0, clues=clues))


def test_no_puzzles_are_refused() -> None:
    with pytest.raises(DataError, match="count is 0"):
        next(generate_sudoku(Sudoku((2, 2)), 0, seed=0))


def test_what_no_puzzle_reaches_ends_with_an_error() -> None:
    with pytest.raises(DataError, match="min_rating=50"):
        list(islice(generate_sudoku(Sudoku((2, 2)), 1, seed=0, min_rating=50), 1))

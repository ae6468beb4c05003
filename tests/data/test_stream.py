from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from eqr_core.data.backtracking import rating, search_for
from eqr_core.data.canonical import canonical_grids, keys
from eqr_core.data.climb import climb
from eqr_core.data.lanes import search
from eqr_core.data.minimal import random_puzzles
from eqr_core.data.packed import pack
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.stream import Wanted, first_rows, puzzle_stream
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import BOXES, DIGITS
from tests.data.test_lanes import BOXES as SMALL


def wanted(size: int, **wishes: object) -> Wanted:
    return Wanted(size, BOXES[size], **wishes)  # type: ignore[arg-type]


def digits(text: str) -> list[int]:
    return [DIGITS.find(char) + 1 for char in text]


def check_rows(size: int, rows: list[PuzzleRow]) -> None:
    """One solution, which is the answer, and the rating of the sequential solver."""
    assert len({row.question for row in rows}) == len(rows)
    for row in rows:
        found = search_for(BOXES[size]).run(digits(row.question))
        assert found.solutions == (tuple(digits(row.answer)),)
        assert row.rating == rating(BOXES[size], digits(row.question))


@pytest.mark.parametrize("box", SMALL)
def test_random_puzzles_are_minimal_and_have_one_solution(box: tuple[int, int]) -> None:
    question, answer = random_puzzles(box, 25, np.random.default_rng(2))
    found = search(box, question)
    np.testing.assert_array_equal(found.count, 1)
    np.testing.assert_array_equal(found.solutions[:, 0], answer)
    row, cell = question.nonzero()
    fewer = question[row]
    fewer[np.arange(len(row)), cell] = 0
    assert (search(box, fewer).count == 2).all()


@pytest.mark.parametrize(
    "wish",
    [
        wanted(4),
        wanted(6, min_rating=1),
        wanted(9, min_rating=4, max_rating=9),
        wanted(9, max_rating=0),
        wanted(4, clues=(5, 7)),
        wanted(9, clues=30),
        wanted(16, clues=150),
    ],
    ids=str,
)
def test_rows_are_what_was_wanted(wish: Wanted) -> None:
    rows = list(first_rows(wish, 3 if wish.size == 16 else 40))
    check_rows(wish.size, rows)
    low, high = wish.min_rating or 0, wish.max_rating
    assert all(low <= row.rating <= (high if high is not None else 9999) for row in rows)
    if wish.clues:
        least, most = wish.clues if isinstance(wish.clues, tuple) else (wish.clues, wish.clues)
        assert all(least <= sum(map(bool, digits(r.question))) <= most for r in rows)
    assert rows == list(first_rows(wish, len(rows)))
    assert rows[:2] == list(first_rows(wish, 2))


@pytest.mark.parametrize("wish", [wanted(6, min_rating=2), wanted(4, clues=6)], ids=str)
def test_any_number_of_workers_makes_the_same_rows(wish: Wanted) -> None:
    rows = list(first_rows(wish, 300))
    assert rows == list(first_rows(wish, 300, workers=2))
    assert rows[:290] == list(first_rows(wish, 290, workers=3))


def test_seeds_make_different_rows() -> None:
    first, second = (list(first_rows(wanted(9, seed=seed), 10)) for seed in (1, 2))
    assert {row.question for row in first}.isdisjoint(row.question for row in second)


def test_no_solution_grid_of_9x9_comes_twice() -> None:
    packed = pack(first_rows(wanted(9, min_rating=8), 150))
    forms = canonical_grids((3, 3), packed.answer - 1)
    assert len(np.unique(keys(forms))) == 150
    assert packed.sources == ("climbed_9x9",)


def test_a_climb_rises_and_stays_within_its_limit() -> None:
    steps = list(climb((3, 3), 24, 12, 50, None, np.random.default_rng(3)))
    assert np.median(steps[-1].effort) > 2 * np.median(steps[0].effort)
    held = list(climb((3, 3), 24, 12, 2, 4, np.random.default_rng(3)))
    assert np.median(held[-1].mean_rating) < np.median(steps[-1].mean_rating)


def test_workers_end_with_the_stream() -> None:
    stream = puzzle_stream(wanted(6), workers=2)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_a_worker_that_dies_ends_the_stream_with_an_error() -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    stream = puzzle_stream(wanted(6), workers=2)
    next(stream)
    for child in multiprocessing.active_children():
        if child.pid not in before:
            child.kill()
    with pytest.raises(DataError, match="a worker process ended"):
        list(stream)
    assert {child.pid for child in multiprocessing.active_children()} <= before


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_found_ends_with_an_error(workers: int) -> None:
    with pytest.raises(DataError, match="found 0 different 4x4 puzzles with min_rating=5"):
        list(first_rows(wanted(4, min_rating=5), 1, workers))
    with pytest.raises(DataError, match="clues is 2 to 2"):
        list(first_rows(wanted(4, clues=2), 1, workers))


def test_a_stream_that_runs_dry_says_how_many_there_were() -> None:
    rows = []
    with pytest.raises(DataError, match=r"found \d+ different 4x4 puzzles with clues=15") as caught:
        for row in puzzle_stream(wanted(4, clues=15)):
            rows.append(row)
    # 288 boards, of each any of 16 cells blank.
    assert f"found {len(rows)} " in str(caught.value)
    assert 0.8 * 288 * 16 < len(rows) <= 288 * 16


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"min_rating": -2}, "min_rating is -2"),
        ({"min_rating": 5, "max_rating": 4}, "max_rating is 4, which is less"),
    ],
)
def test_impossible_wishes_are_refused(wishes: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        wanted(9, **wishes)

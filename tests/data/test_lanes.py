from __future__ import annotations

import numpy as np
import pytest

import eqr_core.data.lanes as lanes
from eqr_core.data.backtracking import rating, search_for
from eqr_core.data.lanes import Boards, search
from eqr_core.data.minimal import random_puzzles

BOXES = [(2, 2), (2, 3), (3, 3)]
KNOWN = (
    "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    "812753649943682175675491283154237896369845721287169534521974368438526917796318452",
)


def board(text: str) -> Boards:
    return np.array([[0 if char == "." else int(char) for char in text]], np.uint8)


def puzzles(box: tuple[int, int], count: int) -> tuple[Boards, Boards]:
    return random_puzzles(box, count, np.random.default_rng(1))


def test_the_known_hard_puzzle_has_its_one_solution() -> None:
    found = search((3, 3), board(KNOWN[0]))
    assert found.count.tolist() == [1]
    assert (found.solutions[0, 0] == board(KNOWN[1])).all()


@pytest.mark.parametrize("box", BOXES)
def test_many_boards_cost_the_guesses_that_each_costs_alone(box: tuple[int, int]) -> None:
    question, _ = puzzles(box, 30)
    # Taking clues away makes puzzles with several solutions, changing one makes some with none.
    fewer, wrong = question.copy(), question.copy()
    for row in range(30):
        first, last = question[row].nonzero()[0][[0, -1]]
        fewer[row, first] = 0
        wrong[row, last] = wrong[row, last] % (box[0] * box[1]) + 1
    boards = np.concatenate([question, fewer, wrong])
    for limit in (1, 2):
        found = search(box, boards, limit)
        for i, cells in enumerate(boards.tolist()):
            alone = search_for(box).run(cells, limit)
            assert found.guesses[i] == alone.guesses
            assert found.count[i] == len(alone.solutions)
            kept = found.solutions[i, : found.count[i]].tolist()
            assert kept == [list(one) for one in alone.solutions]
            assert found.rating[i] == rating(box, cells)
            assert found.complete[i]


def test_the_number_of_lanes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    question, _ = puzzles((3, 3), 40)
    question[:, :30] = 0
    many = search((3, 3), question, limit=5, max_guesses=60)
    monkeypatch.setattr(lanes, "LANES", 3)
    few = search((3, 3), question, limit=5, max_guesses=60)
    for name in ("count", "solutions", "rating", "guesses", "complete"):
        np.testing.assert_array_equal(getattr(many, name), getattr(few, name))
    assert 0 < few.complete.sum() < 40 or (few.count == 5).any()


def test_all_288_boards_of_4x4_are_counted() -> None:
    firsts = np.zeros((4, 16), np.uint8)
    firsts[:, 0] = [1, 2, 3, 4]
    found = search((2, 2), firsts, limit=100)
    assert found.count.tolist() == [72] * 4
    assert len(np.unique(found.solutions[:, :72].reshape(-1, 16), axis=0)) == 288


def test_a_search_stops_where_its_guesses_end() -> None:
    found = search((3, 3), np.zeros((2, 81), np.uint8), limit=200, max_guesses=3)
    assert found.guesses.tolist() == [3, 3]
    assert not found.complete.any()


def test_a_digit_that_must_not_stand_somewhere_is_kept_out() -> None:
    question, answer = puzzles((2, 3), 20)
    cell = (question == 0).argmax(axis=1)
    digit = answer[np.arange(20), cell].astype(np.intp)
    assert search((2, 3), question, but=(cell, digit)).count.tolist() == [0] * 20
    others = digit % 6 + 1
    assert search((2, 3), question, but=(cell, others)).count.tolist() == [1] * 20


def test_no_boards_need_no_search() -> None:
    assert search((2, 2), np.zeros((0, 16), np.uint8)).count.shape == (0,)


def test_equal_clues_in_a_unit_have_no_solution() -> None:
    boards = np.zeros((3, 81), np.uint8)
    boards[:, 0] = 5
    boards[[0, 1, 2], [8, 72, 20]] = 5
    found = search((3, 3), boards)
    assert found.count.tolist() == [0, 0, 0]
    assert found.guesses.tolist() == [0, 0, 0]


def test_16x16_boards_are_searched() -> None:
    pattern = [[(r % 4 * 4 + r // 4 + c) % 16 + 1 for c in range(16)] for r in range(16)]
    full = np.array(pattern, np.uint8).reshape(1, 256)
    question = full.copy()
    question[:, ::5] = 0
    found = search((4, 4), question, limit=1)
    assert found.count[0] == 1
    blanks = question == 0
    assert (found.solutions[0, 0][~blanks[0]] == full[0][~blanks[0]]).all()
    alone = search_for((4, 4)).run(question[0].tolist(), limit=1)
    assert tuple(found.solutions[0, 0].tolist()) == alone.solutions[0]

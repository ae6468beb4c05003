from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqr_core.data.canonical import canonical_grids, canonical_puzzles, keys
from eqr_core.data.lanes import Boards, Indices, search
from eqr_core.data.minimal import random_puzzles
from eqr_core.data.symmetry import random_images
from eqr_core.errors import DataError
from tests.data.test_lanes import BOXES


def line_orders(n: int, group: int) -> Indices:
    """All orders of n lines that keep groups of `group` neighbours together."""
    return np.array(
        [
            [first * group + i for first, inner in zip(outer, inners, strict=True) for i in inner]
            for outer in permutations(range(n // group))
            for inners in product(permutations(range(group)), repeat=n // group)
        ]
    )


def orbit(box: tuple[int, int], board: Boards) -> set[bytes]:
    """Every image of one board, its digits renamed by their first appearance."""
    n = box[0] * box[1]
    grid = board.reshape(n, n)
    found = set()
    for turned in [grid, grid.T] if box[0] == box[1] else [grid]:
        for rows in line_orders(n, box[0]):
            for columns in line_orders(n, box[1]):
                image = turned[rows][:, columns].reshape(-1)
                seen: dict[int, int] = {0: 0}
                found.add(bytes(seen.setdefault(int(digit), len(seen)) for digit in image))
    return found


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BOXES), st.integers(0, 2**32 - 1))
def test_images_have_the_form_of_the_original(box: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    question, answer = random_puzzles(box, 4, random)
    moved, solved = random_images(box, random, question, answer)
    np.testing.assert_array_equal(canonical_grids(box, solved), canonical_grids(box, answer))
    np.testing.assert_array_equal(
        canonical_puzzles(box, moved, solved), canonical_puzzles(box, question, answer)
    )


@pytest.mark.parametrize("box", BOXES)
def test_images_of_grids_with_many_symmetries_have_their_form(box: tuple[int, int]) -> None:
    (height, width), n = box, box[0] * box[1]
    rows = [[(r % height * width + r // height + c) % n + 1 for c in range(n)] for r in range(n)]
    answer = np.array(rows, np.uint8).reshape(1, -1).repeat(50, axis=0)
    question = answer.copy()
    question[:, ::3] = 0
    images = random_images(box, np.random.default_rng(3), question, answer)
    assert len(np.unique(keys(canonical_grids(box, images[1])))) == 1
    assert len(np.unique(keys(canonical_puzzles(box, *images)))) == 1


@pytest.mark.parametrize("box", BOXES)
def test_the_form_is_a_solution_with_its_clues_and_its_own_form(box: tuple[int, int]) -> None:
    question, answer = random_puzzles(box, 20, np.random.default_rng(4))
    grids, forms = canonical_grids(box, answer), canonical_puzzles(box, question, answer)
    found = search(box, forms)
    assert (found.count == 1).all()
    np.testing.assert_array_equal(found.solutions[:, 0], grids)
    np.testing.assert_array_equal((forms != 0).sum(axis=1), (question != 0).sum(axis=1))
    np.testing.assert_array_equal(found.rating >= 0, True)
    np.testing.assert_array_equal(canonical_grids(box, grids), grids)
    np.testing.assert_array_equal(canonical_puzzles(box, forms, grids), forms)


@pytest.mark.parametrize(("box", "count"), [((2, 2), 40), ((2, 3), 8)])
def test_forms_are_equal_exactly_where_one_is_an_image_of_the_other(
    box: tuple[int, int], count: int
) -> None:
    question, answer = random_puzzles(box, count, np.random.default_rng(5))
    for boards, forms in (
        (answer, canonical_grids(box, answer)),
        (question, canonical_puzzles(box, question, answer)),
    ):
        orbits = [orbit(box, board) for board in boards]
        for i in range(count):
            for j in range(i):
                equivalent = not orbits[i].isdisjoint(orbits[j])
                assert equivalent == (forms[i] == forms[j]).all()


def test_there_are_2_different_grids_of_4x4_and_49_of_6x6() -> None:
    small = np.zeros((1, 16), np.uint8)
    small[0, :4] = [1, 2, 3, 4]
    grids = search((2, 2), small, limit=255)
    answers = grids.solutions[0, : grids.count[0]]
    assert len(np.unique(keys(canonical_grids((2, 2), answers)))) == 2
    # Every 6×6 grid is an image of one with these first two rows and this first column.
    starts = [
        [1, 2, 3, 4, 5, 6, *second, third, *[0] * 5, fourth, *[0] * 5, fifth, *[0] * 5, sixth]
        + [0] * 5
        for second in ((4, 5, 6, 1, 2, 3), (4, 5, 6, 1, 3, 2), (4, 5, 6, 2, 3, 1))
        for third, fourth, fifth, sixth in permutations((2, 3, 5, 6))
    ]
    boards = np.array(starts, np.uint8)
    found = search((2, 3), boards, limit=255)
    assert (found.count < 255).all()
    answers = np.concatenate(
        [rows[:count] for rows, count in zip(found.solutions, found.count, strict=True)]
    )
    assert len(np.unique(keys(canonical_grids((2, 3), answers)))) == 49


def test_grids_that_differ_in_one_rectangle_have_different_forms() -> None:
    # Two rows of a band hold the digits a, b and b, a in two columns: exchanging them makes
    # another grid, in nearly all cases one that is no image of the first.
    _, answer = random_puzzles((3, 3), 300, np.random.default_rng(6))
    changed, original = [], []
    for grid in answer.reshape(-1, 9, 9):
        for band, i, j in product(range(3), range(3), range(3)):
            upper, lower = grid[3 * band + i], grid[3 * band + j]
            pair = [
                (c, d)
                for c in range(9)
                for d in range(c // 3 * 3 + 3, 9)
                if i < j and upper[c] == lower[d] and upper[d] == lower[c]
            ]
            if pair:
                other = grid.copy()
                c, d = pair[0]
                other[np.ix_([3 * band + i, 3 * band + j], [c, d])] = [
                    [upper[d], upper[c]],
                    [lower[d], lower[c]],
                ]
                changed.append(other.reshape(-1))
                original.append(grid.reshape(-1))
                break
    assert len(changed) > 100
    old, new = (canonical_grids((3, 3), np.array(g, np.uint8)) for g in (original, changed))
    assert (search((3, 3), np.array(changed)).count == 1).all()
    assert (old != new).any(axis=1).mean() > 0.95


def test_16x16_has_no_form() -> None:
    with pytest.raises(DataError, match="256 cells"):
        canonical_grids((4, 4), np.ones((1, 256), np.uint8))


def test_no_grids_have_no_forms() -> None:
    assert canonical_grids((3, 3), np.zeros((0, 81), np.uint8)).shape == (0, 81)

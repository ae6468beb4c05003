from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eqr_core.data.equivalence import grid_keys, puzzle_keys, split_apart, without_relatives
from eqr_core.data.minimal import minimise, random_puzzles
from eqr_core.data.packed import PackedPuzzles, join
from eqr_core.data.symmetry import random_images
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import Sudoku


def relatives(box: tuple[int, int], grids: int, each: int) -> PackedPuzzles:
    """`each` different puzzles of the same solution for each of `grids`, as random images."""
    random = np.random.default_rng(7)
    _, answer = random_puzzles(box, grids, random)
    answer = answer.repeat(each, axis=0)
    question = minimise(box, answer, answer, random)
    question, answer = random_images(box, random, question, answer)
    zeros = np.zeros(len(answer), np.int32)
    return PackedPuzzles(question + 1, answer + 1, zeros, zeros, ("made",), Sudoku(box))


def shared(first: PackedPuzzles, second: PackedPuzzles) -> tuple[int, int]:
    """How many puzzles and grids of `second` are equivalent to ones of `first`."""
    return tuple(  # type: ignore[return-value]
        int(np.isin(named(second), named(first)).sum())  # type: ignore[arg-type]
        for named in (puzzle_keys, grid_keys)
    )


def test_no_puzzle_and_no_grid_is_on_both_sides() -> None:
    puzzles = relatives((3, 3), 20, 3)
    rest, held = split_apart(puzzles, 12, seed=1)
    assert (len(rest), len(held)) == (48, 12)
    assert shared(rest, held) == (0, 0)
    rows = [*map(bytes, rest.question), *map(bytes, held.question)]
    assert sorted(rows) == sorted(map(bytes, puzzles.question))
    assert split_apart(puzzles, 12, seed=1)[1].digest == held.digest
    assert split_apart(puzzles, 12, seed=2)[1].digest != held.digest
    # What a split of rows does, and why there are groups.
    assert shared(*puzzles.split(12, seed=1))[1] > 0


@pytest.mark.parametrize("box", [(2, 2), (2, 3)])
def test_small_grids_keep_equivalent_puzzles_together(box: tuple[int, int]) -> None:
    once = relatives(box, 4, 15)
    images = random_images(box, np.random.default_rng(8), once.question - 1, once.answer - 1)
    again = replace(once, question=images[0] + 1, answer=images[1] + 1)
    puzzles = join([once, again])
    rest, held = split_apart(puzzles, 20, seed=1)
    assert (len(rest), len(held)) == (100, 20)
    assert shared(rest, held)[0] == 0
    assert shared(*puzzles.split(20, seed=1))[0] > 0


def test_a_split_that_no_groups_make_up_is_refused() -> None:
    puzzles = relatives((3, 3), 4, 5)
    with pytest.raises(DataError, match="held_out is 3; the 20 puzzles fall into 4 groups"):
        split_apart(puzzles, 3, seed=1)
    for wrong in (0, 20, -1):
        with pytest.raises(DataError, match=f"held_out is {wrong}"):
            split_apart(puzzles, wrong, seed=1)


def test_relatives_of_what_is_held_out_are_dropped_and_no_others() -> None:
    puzzles = relatives((3, 3), 30, 2)
    rest, held = puzzles.split(10, seed=3)
    apart = without_relatives(rest, held)
    names = np.isin(grid_keys(rest), grid_keys(held))  # type: ignore[arg-type]
    assert 0 < names.sum() <= 10
    assert len(apart) == len(rest) - names.sum()
    assert shared(apart, held) == (0, 0)


def test_relatives_stay_where_there_are_few_grids() -> None:
    rest, held = relatives((2, 2), 3, 10).split(5, seed=1)
    assert without_relatives(rest, held) is rest


def test_16x16_puzzles_are_split_by_their_questions() -> None:
    pattern = [[(r % 4 * 4 + r // 4 + c) % 16 + 2 for c in range(16)] for r in range(16)]
    answer = np.array(pattern, np.uint8).reshape(1, 256).repeat(6, axis=0)
    question = answer.copy()
    question[np.arange(6), [0, 0, 1, 2, 3, 4]] = 1
    zeros = np.zeros(6, np.int32)
    puzzles = PackedPuzzles(question, answer, zeros, zeros, ("made",), Sudoku((4, 4)))
    rest, held = split_apart(puzzles, 3, seed=0)
    assert {bytes(row) for row in rest.question}.isdisjoint(map(bytes, held.question))
    assert without_relatives(rest, held) is rest

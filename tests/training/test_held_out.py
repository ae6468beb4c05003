from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eqr_core.data.canonical import canonical_grids
from eqr_core.data.minimal import minimise, random_puzzles
from eqr_core.data.packed import PackedPuzzles
from eqr_core.data.symmetry import random_images
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import Sudoku
from eqr_core.training.puzzles import open_puzzles
from eqr_core.training.recipe import SizeMix
from tests.training.test_training import tiny


def test_no_solution_grid_of_9x9_is_trained_on_and_held_out(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    _, answer = random_puzzles((3, 3), 30, random)
    answer = answer.repeat(2, axis=0)
    question, answer = random_images(
        (3, 3), random, minimise((3, 3), answer, answer, random), answer
    )
    zeros = np.zeros(len(answer), np.int32)
    puzzles = PackedPuzzles(question + 1, answer + 1, zeros, zeros, ("made",), Sudoku())
    puzzles.save(tmp_path / "p.npz")
    recipe = tiny(puzzles=(SizeMix("9x9", 1.0, 4, 60),))
    (one,) = open_puzzles(recipe, [tmp_path / "p.npz"], lambda text: None)
    rest, held_out = puzzles.split(10, 0)
    assert one.validation.digest == held_out.digest
    kept = canonical_grids((3, 3), one.answer.numpy() - 1)
    held = canonical_grids((3, 3), held_out.answer - 1)
    assert not {bytes(grid) for grid in kept} & {bytes(grid) for grid in held}
    assert len(rest) - 10 <= len(kept) < len(rest)


def test_puzzles_of_one_grid_cannot_be_trained_and_validated_on(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    _, answer = random_puzzles((3, 3), 1, random)
    answer = answer.repeat(8, axis=0)
    zeros = np.zeros(8, np.int32)
    question = minimise((3, 3), answer, answer, random)
    PackedPuzzles(question + 1, answer + 1, zeros, zeros, ("made",), Sudoku()).save(
        tmp_path / "p.npz"
    )
    recipe = tiny(puzzles=(SizeMix("9x9", 1.0, 4, 60),))
    with pytest.raises(DataError, match="have the solution grid of one held out"):
        open_puzzles(recipe, [tmp_path / "p.npz"], lambda text: None)

"""Random images keep what makes a puzzle one."""

from __future__ import annotations

import pytest
import torch

from eqr_core.data.augmentation import random_images
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.packed import pack
from eqr_core.tasks.sudoku import Sudoku


@pytest.mark.parametrize("box", [(2, 2), (2, 3), (3, 3)])
def test_an_image_is_a_valid_puzzle_with_its_answer(box: tuple[int, int]) -> None:
    task = Sudoku(box)
    puzzles = pack(generate_sudoku(task, 6, 1))
    question, answer = torch.from_numpy(puzzles.question), torch.from_numpy(puzzles.answer)
    generator = torch.Generator().manual_seed(0)
    turned, solved = random_images(task, question, answer, generator)
    assert turned.dtype == solved.dtype == torch.uint8
    assert not torch.equal(turned, question)
    for one, other, before in zip(turned, solved, question, strict=True):
        assert task.verify(task.decode(one.tolist()), task.decode(other.tolist()))
        assert (one != 1).sum() == (before != 1).sum()
    again = random_images(task, question, answer, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], turned)


def test_images_of_one_puzzle_differ_and_half_are_transposed() -> None:
    task = Sudoku((2, 2))
    # Row 0 is the only one with two clues; transposed, it is a column.
    question = torch.ones(400, 16, dtype=torch.uint8)
    question[:, 0], question[:, 2] = 2, 3
    turned, _ = random_images(task, question, question, torch.Generator().manual_seed(0))
    grids = turned.view(-1, 4, 4) != 1
    in_a_row = (grids.sum(2).amax(1) == 2).float().mean()
    assert 0.4 < float(in_a_row) < 0.6
    assert len({bytes(row.numpy()) for row in turned}) > 50

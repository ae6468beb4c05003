"""Random images of Sudokus under all symmetries of the task."""

from __future__ import annotations

import numpy as np

from eqr_core.data.lanes import Boards, Indices

Rng = np.random.Generator


def random_images(box: tuple[int, int], random: Rng, *boards: Boards) -> tuple[Boards, ...]:
    """Random images of `boards`, uint8 [rows, cells] each; row i of all gets one symmetry.

    The symmetries: any order of bands, of stacks, of the rows in a band and of the columns in a
    stack, any relabelling of the digits, and the transposition where boxes are square. The draws
    use `random.random` alone, the stream of which numpy changes least.
    """
    height, width = box
    n, rows = height * width, len(boards[0])
    down = _line_orders(n, height, rows, random)
    across = _line_orders(n, width, rows, random)
    cell = down[:, :, None] * n + across[:, None, :]
    if height == width:
        turned = random.random(rows) < 0.5
        cell[turned] = cell[turned].swapaxes(1, 2)
    cell = cell.reshape(rows, n * n)
    digits = np.zeros((rows, n + 1), np.uint8)
    digits[:, 1:] = orders(random, rows, n) + 1
    return tuple(
        np.take_along_axis(digits, np.take_along_axis(board, cell, 1).astype(np.intp), 1)
        for board in boards
    )


def orders(random: Rng, rows: int, items: int) -> Indices:
    """A random order of `items` in each row, int [rows, items]."""
    return random.random((rows, items)).argsort(axis=1, kind="stable")


def _line_orders(n: int, group: int, rows: int, random: Rng) -> Indices:
    """Random orders of n lines that keep groups of `group` neighbours together, [rows, n]."""
    groups = orders(random, rows, n // group)
    within = orders(random, rows * (n // group), group).reshape(rows, n // group, group)
    return (groups[:, :, None] * group + within).reshape(rows, n)

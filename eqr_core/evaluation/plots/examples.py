"""Puzzles drawn with the answers they were given at growing depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eqr_core.evaluation.examples import Example
from eqr_core.evaluation.plots.style import BLUE, INK, ORANGE, PALE, plural, sheet, title
from eqr_core.evaluation.summary import Evaluation
from eqr_core.tasks.base import Cell, Grid
from eqr_core.tasks.maze import GOAL, OPEN, PATH, START, WALL

FLOOR, FOUND, WRONG = "#f1f4f6", "#8db8de", "#f6cfb4"
SHADES = ListedColormap([FLOOR, INK, FOUND, WRONG])
_FLOOR, _WALL, _FOUND, _WRONG = range(4)
BLANKS = (0, OPEN)
PANEL = 2.3
"""Inches."""


def answers(found: Evaluation, examples: Sequence[Example]) -> Figure | None:
    """A row for each example, a panel for each depth; None without examples."""
    if not examples:
        return None
    depths = [depth for depth, _ in examples[0].answers]
    figure, axes = sheet(0.5 + PANEL * len(depths), 0.9 + (PANEL + 0.15) * len(examples),
                         nrows=len(examples), ncols=len(depths), squeeze=False)  # fmt: skip
    for line, example in zip(axes, examples, strict=True):
        puzzle = example.puzzle
        for panel, (depth, answer) in zip(line, example.answers, strict=True):
            wrong = _draw(panel, puzzle.grid, answer, puzzle.answer)
            state = f"{plural(wrong, 'cell')} wrong" if wrong else "solved"
            panel.set_title(f"depth {depth}: {state}", fontsize=9, color=INK)
        name = f"puzzle {example.row + 1}\n{puzzle.source}, rating {puzzle.rating}"
        line[0].set_ylabel(name, fontsize=8)
    figure.legend(
        handles=[
            Line2D([], [], linestyle="", marker="s", color=FOUND, label="right answer"),
            Line2D([], [], linestyle="", marker="x", color=ORANGE, label="wrong"),
            Line2D([], [], linestyle="", marker="o", color=ORANGE, markerfacecolor="none",
                   label="left out"),
        ],
        loc="outside upper right", ncols=3, frameon=False, fontsize=8,
    )  # fmt: skip
    main = found.main
    title(figure, "Answers as depth grows", main, f"breadth {main.breadth}, stop {main.stop}")
    return figure


def _draw(panel: Axes, question: Grid, answer: Grid, truth: Grid) -> int:
    """Draw `answer` and return how many of its cells are wrong."""
    rows, columns = len(question), len(question[0])
    shades = np.empty((rows, columns), np.int64)
    side = 72 * (PANEL - 0.35) / max(rows, columns)
    crosses: list[tuple[int, ...]] = []
    rings: list[tuple[int, ...]] = []
    for place in np.ndindex(rows, columns):
        row, column = place
        given, said, right = (grid[row][column] for grid in (question, answer, truth))
        shades[place] = _shade(given, said, right)
        if said != right:
            (rings if said in BLANKS else crosses).append(place)
        if given in (START, GOAL):  # readable in the largest mazes too
            panel.text(column, row, str(given), ha="center", va="center", color=INK,
                       fontsize=max(0.62 * side, 6), fontweight="bold",
                       bbox={"facecolor": "white", "edgecolor": INK, "pad": 0.8})  # fmt: skip
        elif said not in (WALL, PATH, START, GOAL, *BLANKS):
            colour, weight = (INK, "bold") if said == given else (BLUE, "normal")
            panel.text(column, row, str(said), ha="center", va="center", fontsize=0.62 * side,
                       color=colour, fontweight=weight)  # fmt: skip
    panel.imshow(shades, cmap=SHADES, vmin=0, vmax=_WRONG, interpolation="nearest")
    for places, marker in ((crosses, "x"), (rings, "o")):
        y, x = np.array(places).reshape(-1, 2).T
        panel.plot(x, y, linestyle="", marker=marker, color=ORANGE, markerfacecolor="none",
                   markersize=0.55 * side, markeredgewidth=max(0.5, 0.1 * side))  # fmt: skip
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(True)
    panel.spines[:].set_color(PALE)
    return len(crosses) + len(rings)


def _shade(given: Cell, said: Cell, right: Cell) -> int:
    if said != right:
        return _WRONG
    if said == WALL:
        return _WALL
    # What was asked for; S and G are of the path too.
    return _FOUND if said != given or said in (PATH, START, GOAL) else _FLOOR

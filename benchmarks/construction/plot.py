"""A path as a plot, of the cells that are done."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.construction.path import Held, Path

Lines = list[dict[str, Any]]


def draw(path: Path, file: File, summary: Lines) -> None:
    """The stages, each over depth at one trajectory, the last over depth and breadth.

    The first panel and the last are of the size that is trained on; a test on another size has a
    panel over depth of its own.
    """
    first, *others = path.tests
    figure = Figure(figsize=(5 * (3 + len(others)), 4.2), layout="constrained")
    left, *middle, right = figure.subplots(1, 3 + len(others))
    names = list(dict.fromkeys(line["stage"] for line in summary))
    for depth, shift in ((16, -0.1), (first.depths[-1], 0.1)):
        lines = [_find(summary, name, first.size, depth, 1) for name in names]
        _errorbar(left, np.arange(len(names)) + shift, lines, f"depth {depth}")
    left.set_xticks(range(len(names)), names, rotation=30, ha="right")
    left.set_title(f"{first.size}, breadth 1")
    for axes, held in zip(middle, path.tests, strict=True):
        for name in names:
            lines = [_find(summary, name, held.size, depth, 1) for depth in held.depths]
            _errorbar(axes, np.array(held.depths), lines, name)
        axes.set_title(f"{held.size}, breadth 1")
        _over_depth(axes, held)
    wide = [line for line in summary if (line["stage"], line["size"]) == (names[-1], first.size)]
    for breadth in sorted({line["breadth"] for line in wide}):
        lines = [_find(wide, names[-1], first.size, depth, breadth) for depth in first.depths]
        _errorbar(right, np.array(first.depths), lines, f"breadth {breadth}")
    right.set_title(f"{first.size}, {names[-1]}: depth and breadth")
    _over_depth(right, first)
    for axes in (left, *middle, right):
        axes.set_ylim(-2, 102)
        axes.set_ylabel("puzzles solved, %")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=150)


def _over_depth(axes: Any, held: Held) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(held.depths, [str(depth) for depth in held.depths])
    axes.set_xlabel("depth")


def _errorbar(axes: Any, x: Any, lines: Lines, label: str) -> None:
    mean = 100 * np.array([line["exact_accuracy"] for line in lines])
    ends = 100 * np.array([line["interval"] for line in lines]).T
    spread = np.abs(ends - mean)
    axes.errorbar(x, mean, spread, marker="o", markersize=4, capsize=3, linewidth=1, label=label)


def _find(summary: Lines, stage: str, size: str, depth: int, breadth: int) -> dict[str, Any]:
    wanted = {"stage": stage, "size": size, "depth": depth, "breadth": breadth}
    return next(line for line in summary if wanted.items() <= line.items())

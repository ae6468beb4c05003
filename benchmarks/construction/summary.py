"""What the cells came to: shares with intervals over seeds, as CSV, table and plot."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.construction.cells import BREADTHS, DEPTHS, result_path
from benchmarks.construction.path import DEPTH, PATH, SIZE

RESAMPLES = 10_000


def summarise(out: Path, seeds: int) -> list[dict[str, Any]]:
    """For each stage, depth and breadth: the share solved of each seed, mean and interval.

    Cells that are not done are left out, and so are stages without any.
    """
    lines = []
    for stage in range(len(PATH)):
        paths = [result_path(out, stage, seed) for seed in range(seeds)]
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        for place, cell in enumerate(found[0]["exact"] if found else []):
            counts = [one["exact"][place]["exact"] for one in found]
            shares = [count / found[0]["rows"] for count in counts]
            low, high = interval(counts, found[0]["rows"])
            lines.append(
                {
                    "stage": found[0]["stage"],
                    "parameters": found[0]["parameters"],
                    "depth": cell["depth"],
                    "breadth": cell["breadth"],
                    "rows": found[0]["rows"],
                    "seeds": shares,
                    "exact_accuracy": float(np.mean(shares)),
                    "interval": [low, high],
                }
            )
    return lines


def interval(counts: list[int], rows: int) -> tuple[float, float]:
    """95 % interval of the mean share over seeds.

    Seeds are resampled; within each the share is drawn from its posterior under Jeffreys' prior,
    which leaves doubt where none or all were solved.
    """
    random = np.random.default_rng(0)
    chosen = random.choice(np.array(counts), (RESAMPLES, len(counts)))
    means = random.beta(chosen + 0.5, rows - chosen + 0.5).mean(1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high


def write_table(path: Path, summary: list[dict[str, Any]]) -> None:
    """The summary as CSV, a line for each stage, depth and breadth."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ["stage", "parameters", "depth", "breadth", "rows", "exact_accuracy"]
        writer.writerow([*names, "low", "high", "seeds", "shares"])
        for line in summary:
            row = [line[name] for name in names]
            shares = line["seeds"]
            writer.writerow([*row, *line["interval"], len(shares), " ".join(map(str, shares))])


def show(summary: list[dict[str, Any]]) -> None:
    """The path as a table: accuracy of one trajectory, and of the largest breadth."""
    columns = [(1, 1), (DEPTH, 1), (DEPTHS[-1], 1), (DEPTHS[-1], BREADTHS[-1])]
    table = Table("", "parameters", *(f"D {d}, B {b}" for d, b in columns))
    for stage in dict.fromkeys(line["stage"] for line in summary):
        lines = {(s["depth"], s["breadth"]): s for s in summary if s["stage"] == stage}
        cells = [_percent(lines[c]) if c in lines else "" for c in columns]
        table.add_row(stage, f"{lines[columns[0]]['parameters']:,}", *cells)
    Console(width=max(100, Console().width)).print(table)


def draw(path: Path, summary: list[dict[str, Any]]) -> None:
    """The path, every stage over depth at one trajectory, the last stage over depth and breadth."""
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = list(dict.fromkeys(line["stage"] for line in summary))
    for depth, shift in ((DEPTH, -0.1), (DEPTHS[-1], 0.1)):
        lines = [_find(summary, name, depth, 1) for name in names]
        _errorbar(left, np.arange(len(names)) + shift, lines, f"depth {depth}")
    left.set_xticks(range(len(names)), names, rotation=30, ha="right")
    left.set_title(f"{SIZE}, breadth 1")
    for name in names:
        lines = [_find(summary, name, depth, 1) for depth in DEPTHS]
        _errorbar(middle, np.array(DEPTHS), lines, name)
    middle.set_title("Depth, breadth 1")
    for breadth in sorted({s["breadth"] for s in summary if s["stage"] == names[-1]}):
        lines = [_find(summary, names[-1], depth, breadth) for depth in DEPTHS]
        _errorbar(right, np.array(DEPTHS), lines, f"breadth {breadth}")
    right.set_title(f"{names[-1]}: depth and breadth")
    for axes in (middle, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        axes.set_xlabel("depth")
    for axes in (left, middle, right):
        axes.set_ylim(0, 100)
        axes.set_ylabel("puzzles solved, %")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def _errorbar(axes: Any, x: Any, lines: list[dict[str, Any]], label: str) -> None:
    mean = 100 * np.array([line["exact_accuracy"] for line in lines])
    ends = 100 * np.array([line["interval"] for line in lines]).T
    spread = np.abs(ends - mean)
    axes.errorbar(x, mean, spread, marker="o", markersize=4, capsize=3, linewidth=1, label=label)


def _find(summary: list[dict[str, Any]], stage: str, depth: int, breadth: int) -> dict[str, Any]:
    wanted = (stage, depth, breadth)
    return next(s for s in summary if (s["stage"], s["depth"], s["breadth"]) == wanted)


def _percent(line: dict[str, Any]) -> str:
    low, high = line["interval"]
    return f"{100 * line['exact_accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"

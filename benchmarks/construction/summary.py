"""What the cells came to: shares with intervals over seeds, as CSV and table."""

from __future__ import annotations

import csv
import json
from pathlib import Path as File
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.construction.cells import result_file
from benchmarks.construction.path import Path

RESAMPLES = 10_000


def summarise(path: Path, out: File, seeds: int) -> list[dict[str, Any]]:
    """For each stage, size, depth and breadth: the share solved of each seed, mean and interval.

    Cells that are not done are left out, and so are stages without any.
    """
    lines = []
    for stage in range(len(path.stages)):
        files = [result_file(out, stage, seed) for seed in range(seeds)]
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
        for place, cell in enumerate(found[0]["exact"] if found else []):
            rows = cell["rows"]
            counts = [one["exact"][place]["exact"] for one in found]
            shares = [count / rows for count in counts]
            low, high = interval(counts, rows)
            lines.append(
                {
                    "stage": found[0]["stage"],
                    "parameters": found[0]["parameters"],
                    "size": cell["size"],
                    "depth": cell["depth"],
                    "breadth": cell["breadth"],
                    "rows": rows,
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


def write_table(file: File, summary: list[dict[str, Any]]) -> None:
    """The summary as CSV, a line for each stage, size, depth and breadth."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        names = ["stage", "parameters", "size", "depth", "breadth", "rows", "exact_accuracy"]
        writer.writerow([*names, "low", "high", "seeds", "shares"])
        for line in summary:
            row = [line[name] for name in names]
            shares = line["seeds"]
            writer.writerow([*row, *line["interval"], len(shares), " ".join(map(str, shares))])


def show(path: Path, summary: list[dict[str, Any]]) -> None:
    """The path as a table: accuracy of one trajectory, and of the largest breadth."""
    columns = [
        (held.size, depth, breadth)
        for held in path.tests
        for depth, breadth in dict.fromkeys(
            [
                *((depth, 1) for depth in sorted({held.depths[0], 16, held.depths[-1]})),
                (held.depths[-1], held.breadths[-1]),
            ]
        )
    ]
    table = Table("", "parameters", *(f"{s}, D {d}, B {b}" for s, d, b in columns))
    for stage in dict.fromkeys(line["stage"] for line in summary):
        lines = {
            (line["size"], line["depth"], line["breadth"]): line
            for line in summary
            if line["stage"] == stage
        }
        cells = [_percent(lines[c]) if c in lines else "" for c in columns]
        table.add_row(stage, f"{lines[columns[0]]['parameters']:,}", *cells)
    Console(width=max(40 + 20 * len(columns), Console().width)).print(table)


def _percent(line: dict[str, Any]) -> str:
    low, high = line["interval"]
    return f"{100 * line['exact_accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"

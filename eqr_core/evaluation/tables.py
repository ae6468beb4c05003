"""An evaluation as files: report.json, CSV tables, and the plots beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eqr_core.errors import DataError
from eqr_core.evaluation.landscape import REGIMES
from eqr_core.evaluation.part import write_whole
from eqr_core.evaluation.summary import Evaluation

REPORT = "report.json"
CELL_FIELDS = (
    "stop", "depth", "breadth", "nfe", "tolerance", "rows", "exact", "exact_accuracy",
    "cell_accuracy", "converged", "verified", "exact_given_converged", "mean_iterations",
    "mean_nfe",
)  # fmt: skip

Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


def write_tables(folder: Path, evaluation: Evaluation) -> None:
    """Write report.json and the CSV files; DataError where the folder cannot be written."""
    files = {REPORT: json.dumps(evaluation.to_dict(), indent=2) + "\n"}
    for name, (header, rows) in _tables(evaluation).items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        files[f"{name}.csv"] = text.getvalue()
    try:
        for name, content in files.items():
            write_whole(folder / name, content.encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from None


def _tables(evaluation: Evaluation) -> dict[str, Table]:
    tables = {"cells": _cells(evaluation), "strata": _strata(evaluation)}
    if evaluation.landscape is not None:
        tables["regimes"] = _regimes(evaluation.landscape.table())
        header = ("row", "source", "rating", "trajectories", "right", "settled",
                  "settled_wrong", "regime")  # fmt: skip
        tables["inputs"] = header, (
            (row, subject.source, subject.rating, seen.trajectories, seen.right, seen.settled,
             seen.settled_wrong, seen.regime)
            for row, subject, seen in evaluation.landscape.inputs
        )  # fmt: skip
    for name, entries in (
        ("residual", evaluation.residual),
        ("reliability", evaluation.reliability),
    ):
        if entries:
            tables[name] = _plain(entries)
    if evaluation.iterations:
        tables["iterations"] = (
            ("rating", "iterations", "puzzles"),
            (
                (name, steps, count)
                for name, group in evaluation.iterations.items()
                for steps, count in [
                    *group["iterations"].items(),
                    ("not converged", group["puzzles"] - group["converged"]),
                ]
            ),
        )
    return tables


def _cells(evaluation: Evaluation) -> Table:
    header = (*CELL_FIELDS, "exact_low", "exact_high")
    return header, (
        (*(getattr(report, name) for name in CELL_FIELDS), *report.exact_interval)
        for report in evaluation.reports
    )


def _strata(evaluation: Evaluation) -> Table:
    header = ("stop", "depth", "breadth", "by", "name", "rows", "exact", "exact_accuracy",
              "exact_low", "exact_high")  # fmt: skip
    return header, (
        (r.stop, r.depth, r.breadth, by, name, share["rows"], share["exact"],
         share["exact_accuracy"], *share["exact_interval"])
        for r in evaluation.reports
        for by, groups in (("rating", r.rating), ("source", r.source), ("size", r.size))
        for name, share in groups.items()
    )  # fmt: skip


def _regimes(table: list[dict[str, Any]]) -> Table:
    shares = ("right_share", "settled_share", "settled_wrong_share")
    return ("by", "name", "inputs", *REGIMES, *shares), (
        (
            entry["by"],
            entry["name"],
            entry["inputs"],
            *(entry["regimes"][regime] for regime in REGIMES),
            *(entry[share] for share in shares),
        )
        for entry in table
    )


def _plain(entries: list[dict[str, Any]]) -> Table:
    """Entries as rows; an interval takes two columns."""
    flat = [
        {
            key: value
            for name, entry_value in entry.items()
            for key, value in (
                zip((f"{name}_low", f"{name}_high"), entry_value, strict=True)
                if isinstance(entry_value, list)
                else [(name, entry_value)]
            )
        }
        for entry in entries
    ]
    return tuple(flat[0]), (tuple(row.values()) for row in flat)

"""An evaluation in the terminal: a summary, the grid of its cells, the strata, the landscape."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from eqr_core.evaluation.landscape import MEANINGS, REGIMES
from eqr_core.evaluation.report import Report
from eqr_core.evaluation.summary import Evaluation

KINDS = {"exhausted": "fixed", "converged": "adaptive", "verified": "adaptive, verified"}


def print_evaluation(found: Evaluation) -> None:
    """Print what a person wants to know first."""
    console = Console()
    _print_main(console, found.main)
    if len(found.reports) > 1:
        for stop in dict.fromkeys(report.stop for report in found.reports):
            console.print(_cells([r for r in found.reports if r.stop == stop]))
    console.print(_strata(found.main))
    if found.landscape is not None:
        console.print(_landscape(found.landscape.table()))


def _print_main(console: Console, report: Report) -> None:
    low, high = report.exact_interval
    console.print(
        f"{report.model} on {report.data}: {report.exact} of {report.rows} exact "
        f"({report.exact_accuracy:.1%}, 95% interval {low:.1%} to {high:.1%})\n"
        f"D {report.depth}, B {report.breadth}, stop {report.stop}: cells "
        f"{report.cell_accuracy:.2%}, converged {report.converged:.1%}, verified "
        f"{report.verified:.1%}, mean iterations {report.mean_iterations:.1f}, mean NFE "
        f"{report.mean_nfe:.1f}, {report.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _cells(reports: list[Report]) -> Table:
    """Depth down, breadth across; accuracy, and the mean NFE where it is no plain product."""
    breadths = sorted({report.breadth for report in reports})
    adaptive = reports[0].stop != "exhausted" or reports[0].nfe is not None
    title = f"exact, {KINDS[reports[0].stop]} budgets" + (" (mean NFE)" if adaptive else "")
    table = Table("depth", title=title, title_justify="left")
    for breadth in breadths:
        table.add_column(f"B {breadth}", justify="right")
    for depth in sorted({report.depth for report in reports}):
        row = sorted((r for r in reports if r.depth == depth), key=lambda r: r.breadth)
        table.add_row(
            str(depth),
            *(
                f"{r.exact_accuracy:.1%}" + (f" ({r.mean_nfe:.1f})" if adaptive else "")
                for r in row
            ),
        )
    return table


def _strata(report: Report) -> Table:
    title = f"D {report.depth}, B {report.breadth}, stop {report.stop}"
    table = Table("", title=title, title_justify="left")
    for name in ("puzzles", "exact", "accuracy", "95% interval"):
        table.add_column(name, justify="right")
    # A source names its size mostly; where there is one size, its line would be the total's.
    sizes = report.size if len(report.size) > 1 else {}
    for prefix, groups in (("rating", report.rating), ("", report.source), ("", sizes)):
        if not groups:
            continue
        for name, share in groups.items():
            low, high = share["exact_interval"]
            table.add_row(
                f"{prefix} {name}".strip(),
                str(share["rows"]),
                str(share["exact"]),
                f"{share['exact_accuracy']:.1%}",
                f"{low:.1%} to {high:.1%}",
            )
        table.add_section()
    return table


def _landscape(entries: list[dict[str, Any]]) -> Table:
    caption = "; ".join(f"{regime}: {meaning}" for regime, meaning in MEANINGS.items())
    table = Table("", title="regime of each input's landscape", caption=caption,
                  title_justify="left", caption_justify="left")  # fmt: skip
    for name in ("inputs", *REGIMES):
        table.add_column(name, justify="right")
    by = ""
    for entry in entries:
        if by and entry["by"] != by:
            table.add_section()
        by = entry["by"]
        name = {"all": "all", "rating": f"rating {entry['name']}"}.get(by, entry["name"])
        counts = (str(entry["regimes"][regime]) for regime in REGIMES)
        table.add_row(name, str(entry["inputs"]), *counts)
    return table

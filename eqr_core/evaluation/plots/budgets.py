"""Accuracy over depth and breadth, and over what it costs."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from eqr_core.evaluation.plots.style import (
    GRID,
    INK,
    PALE,
    percent,
    percent_axis,
    plain_log_axis,
    sheet,
    title,
)
from eqr_core.evaluation.report import Report
from eqr_core.evaluation.summary import Evaluation

KINDS = {
    "exhausted": "fixed budgets",
    "converged": "adaptive budgets",
    "verified": "adaptive budgets, verified",
}
LOOKS: dict[str, tuple[Literal["-", "--", ":"], str]] = {
    "exhausted": ("-", "o"),
    "converged": ("--", "D"),
    "verified": (":", "s"),
}
"""Line and marker."""
SHADES = colormaps["YlGnBu"]


def heat_map(found: Evaluation) -> Figure | None:
    """Exact accuracy in each cell, one panel a stop; None for a single budget."""
    stops = list(dict.fromkeys(report.stop for report in found.reports))
    depths = sorted({report.depth for report in found.reports})
    breadths = sorted({report.breadth for report in found.reports})
    if len(depths) * len(breadths) == 1:
        return None
    width = 1.6 + len(stops) * max(2.6, 0.95 * len(breadths) + 0.9)
    figure, axes = sheet(width, max(2.9, 1.5 + 0.62 * len(depths)), ncols=len(stops),
                         squeeze=False, sharey=True)  # fmt: skip
    lowest = min(report.exact_accuracy for report in found.reports)
    floor = min(math.floor(20 * lowest) / 20, 0.9)
    image = None
    for panel, stop in zip(axes.flat, stops, strict=True):
        cells = [report for report in found.reports if report.stop == stop]
        values = np.array([r.exact_accuracy for r in cells]).reshape(len(depths), -1)
        image = panel.imshow(
            values, origin="lower", aspect="auto", cmap=SHADES, vmin=floor, vmax=1.0
        )
        for index, report in enumerate(cells):
            _write_cell(panel, divmod(index, len(breadths)), report, floor)
        panel.set_xticks(range(len(breadths)), [str(value) for value in breadths])
        panel.set_yticks(range(len(depths)), [str(value) for value in depths])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(KINDS[stop], fontsize=10, color=INK)
        panel.set_xlabel("breadth (trajectories)")
    axes.flat[0].set_ylabel("depth (outer steps)")
    if image is not None:
        bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=0), pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=INK)
    title(figure, "Exact accuracy over depth and breadth", found.main, "small: 95% interval"
          + (", mean NFE" if any(stop != "exhausted" for stop in stops) else ""))  # fmt: skip
    return figure


def accuracy_by_nfe(found: Evaluation) -> Figure | None:
    """Accuracy against mean NFE, fixed and adaptive; None for a single budget."""
    if len(found.reports) == 1:
        return None
    figure, axes = sheet(7.4, 4.4)
    depths = sorted({report.depth for report in found.reports})
    # From a dark that is not black to a light that is still seen on white.
    colours = colormaps["viridis"](np.linspace(0.05, 0.82, len(depths)))
    stops = list(dict.fromkeys(report.stop for report in found.reports))
    for stop in stops:
        line, marker = LOOKS[stop]
        for depth, colour in zip(depths, colours, strict=True):
            cells = [r for r in found.reports if r.stop == stop and r.depth == depth]
            value = np.array([r.exact_accuracy for r in cells])
            bounds = np.array([r.exact_interval for r in cells]).T
            axes.errorbar(
                [r.mean_nfe for r in cells],
                value,
                yerr=np.abs(bounds - value),
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=7 if stop == "exhausted" else 4,
                markerfacecolor=colour if stop == "exhausted" else "white",
                linewidth=1.4,
                elinewidth=0.7,
                capsize=2,
            )
    plain_log_axis(axes)
    percent_axis(axes, "exact accuracy")
    axes.set_xlabel("mean NFE of a puzzle (outer steps of all its trajectories)")
    axes.grid(axis="x", color=GRID)
    handles = [
        Line2D([], [], color=c, linewidth=3, label=f"depth {d}")
        for d, c in zip(depths, colours, strict=True)
    ]
    for stop in stops:
        line, marker = LOOKS[stop]
        fill = PALE if stop == "exhausted" else "white"
        handles.append(
            Line2D([], [], color=PALE, linestyle=line, marker=marker, markerfacecolor=fill,
                   label=KINDS[stop])
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    title(figure, "Accuracy against compute", found.main,
          "along a line breadth grows; bars: 95% interval")  # fmt: skip
    return figure


def _write_cell(panel: Axes, place: tuple[int, int], report: Report, floor: float) -> None:
    y, x = place
    shade = (report.exact_accuracy - floor) / (1 - floor)
    colour = "white" if shade > 0.55 else INK
    low, high = report.exact_interval
    below = f"{percent(low)} – {percent(high)}"
    if report.stop != "exhausted":
        below += (
            f"\nNFE {report.mean_nfe:.3g}"
            if report.mean_nfe < 1000
            else (f"\nNFE {report.mean_nfe:,.0f}")
        )
    panel.text(x, y + 0.16, percent(report.exact_accuracy), ha="center", va="center",
               fontsize=10, fontweight="bold", color=colour)  # fmt: skip
    panel.text(x, y - 0.2, below, ha="center", va="center", fontsize=6.5, color=colour)

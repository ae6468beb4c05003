"""What trajectories show: residual against accuracy, halting, iterations to converge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eqr_core.evaluation.plots.style import (
    BLUE,
    GRID,
    INK,
    ORANGE,
    PALE,
    legend_above,
    percent,
    percent_axis,
    plain_log_axis,
    plural,
    sheet,
    title,
)
from eqr_core.evaluation.summary import Evaluation

MOST_BINS = 32
EVEN_DEPTH = 2 * MOST_BINS
FEW = 5
"""Bins of fewer trajectories are drawn pale: their interval says little."""


def accuracy_by_residual(found: Evaluation) -> Figure | None:
    """The paper's Fig. 1: accuracy in bins of the final score, with the number in each."""
    if not found.residual:
        return None
    bins = found.residual
    figure, axes = sheet(7.4, 4.8, nrows=2, sharex=True, height_ratios=[2.2, 1])
    low, high = np.array([b["low"] for b in bins]), np.array([b["high"] for b in bins])
    value = np.array([b["accuracy"] for b in bins])
    bounds = np.array([b["interval"] for b in bins]).T
    middle = np.sqrt(low * high)
    counts = np.array([b["trajectories"] for b in bins])
    for few, shade in ((True, 0.3), (False, 1.0)):
        shown = (counts < FEW) == few
        axes[0].errorbar(middle[shown], value[shown], yerr=np.abs(bounds - value)[:, shown],
                         color=BLUE, alpha=shade, marker="o", markersize=5, linewidth=0,
                         elinewidth=1.3, capsize=2)  # fmt: skip
    percent_axis(axes[0], "right trajectories")
    axes[1].bar(low, counts, width=high - low, align="edge", color=BLUE, alpha=0.45,
                edgecolor="white", linewidth=0.6)  # fmt: skip
    axes[1].set_yscale("log")
    axes[1].set_ylim(0.7, 2.5 * counts.max())
    axes[1].set_ylabel("trajectories")
    axes[1].set_xscale("log")
    axes[1].grid(axis="y", color=GRID)
    axes[1].set_xlabel("final score (mean relative residual of the last three outer steps)")
    for panel in axes:
        panel.minorticks_off()
        _mark_tolerance(panel, found, label=panel is axes[0])
    main = found.main
    lost = f", {found.diverged:,} diverged" if found.diverged else ""
    note = f"{counts.sum():,} trajectories of depth {main.depth}{lost}; bars: 95% interval, "
    note += f"pale: of fewer than {FEW}"
    title(figure, "Accuracy against residual", main, note)
    return figure


def reliability(found: Evaluation) -> Figure | None:
    """Precision and recall of halting at each threshold."""
    if not found.reliability or not any(entry["stopped"] for entry in found.reliability):
        return None
    figure, axes = sheet(7.4, 4.2)
    entries = found.reliability
    for name, colour, width, meaning in (
        ("precision", BLUE, 3.0, "precision: right among the stopped"),
        ("recall", ORANGE, 1.5, "recall: stopped among the right"),
    ):
        known = [entry for entry in entries if entry[name] is not None]
        if not known:
            continue
        x = [entry["threshold"] for entry in known]
        bounds = np.array([entry[f"{name}_interval"] for entry in known]).T
        axes.fill_between(x, *bounds, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, [entry[name] for entry in known], color=colour, linewidth=width, label=meaning)
    axes.set_xscale("log")
    axes.set_xlabel("threshold on the score at which a trajectory stops")
    percent_axis(axes, "share of trajectories")
    axes.grid(axis="x", color=GRID)
    _mark_tolerance(axes, found)
    axes.minorticks_off()
    legend_above(axes, 2)
    count = entries[0]["trajectories"]
    title(figure, "Can convergence be trusted?", found.main,
          f"{count:,} trajectories of depth {found.main.depth}; bands: 95% interval")  # fmt: skip
    return figure


def iterations(found: Evaluation) -> Figure | None:
    """Histogram of the outer steps to convergence, a panel for each rating class."""
    if not found.iterations or not any(g["converged"] for g in found.iterations.values()):
        return None
    groups = found.iterations
    figure, axes = sheet(7.4, 1.3 + 1.15 * len(groups), nrows=len(groups), sharex=True,
                         squeeze=False)  # fmt: skip
    depth = max(report.depth for report in found.reports)
    edges = _edges(depth)
    for panel, (name, group) in zip(axes.flat, groups.items(), strict=True):
        steps = [int(n) for n in group["iterations"]]
        weights = [count / group["puzzles"] for count in group["iterations"].values()]
        panel.hist(steps, bins=edges, weights=weights, color=BLUE, alpha=0.75, edgecolor="white",
                   linewidth=0.5)  # fmt: skip
        panel.yaxis.set_major_formatter(lambda value, _: percent(value))
        panel.grid(axis="y", color=GRID)
        share = group["converged"] / group["puzzles"]
        text = f"rating {name}: {plural(group['puzzles'], 'puzzle')}, {percent(share)} converge"
        if group["converged"]:
            text += f", median {_median(group)}"
        panel.set_title(text, loc="left", fontsize=9, color=INK)
        panel.yaxis.set_major_locator(MaxNLocator(3))
        if depth > EVEN_DEPTH:
            plain_log_axis(panel)
        panel.set_xlim(edges[0], edges[-1])
    axes.flat[-1].set_xlabel("outer steps until the first trajectory converges")
    figure.supylabel("share of the puzzles", fontsize=10, color=INK)
    main = found.main
    title(figure, "Iterations to converge, by rating", main,
          f"depth at most {depth}, tolerance {main.tolerance:.3g}")  # fmt: skip
    return figure


def _edges(depth: int) -> npt.NDArray[np.float64]:
    """Bin edges that fall between whole numbers; even up to EVEN_DEPTH, else widening."""
    if depth <= EVEN_DEPTH:
        width = 1 if depth <= MOST_BINS else 2
        return np.arange(0.5, depth + width, width)
    return np.unique(np.geomspace(1, depth + 1, MOST_BINS).round()) - 0.5


def _median(group: dict[str, Any]) -> int:
    half, seen = (group["converged"] + 1) // 2, 0
    for steps, count in group["iterations"].items():
        seen += count
        if seen >= half:
            return int(steps)
    return 0


def _mark_tolerance(axes: Axes, found: Evaluation, label: bool = True) -> None:
    tolerance = found.main.tolerance
    if tolerance is None:
        return
    axes.axvline(tolerance, color=PALE, linestyle="--", linewidth=1)
    if label:
        axes.annotate(
            f"tolerance {tolerance:.3g}",
            (tolerance, 0.04),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color=PALE,
        )

"""Accuracy by the size of the puzzles."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from eqr_core.evaluation.plots.style import legend_above, percent_axis, sheet, title
from eqr_core.evaluation.summary import Evaluation


def accuracy_by_size(found: Evaluation) -> Figure | None:
    """Accuracy at the largest breadth, a line for each depth; None for one size."""
    main = found.main
    sizes = list(main.size)
    if len(sizes) == 1:
        return None
    lines = [r for r in found.reports if (r.stop, r.breadth) == (main.stop, main.breadth)]
    figure, axes = sheet(7.4, 4.2)
    place = np.arange(len(sizes))
    shifts = np.linspace(-0.12, 0.12, len(lines)) if len(lines) > 1 else np.zeros(1)
    colours = colormaps["viridis"](np.linspace(0.05, 0.82, len(lines)))
    for report, shift, colour in zip(lines, shifts, colours, strict=True):
        shares = [report.size[size] for size in sizes]
        value = np.array([share["exact_accuracy"] for share in shares])
        bounds = np.array([share["exact_interval"] for share in shares]).T
        axes.errorbar(place + shift, value, yerr=np.abs(bounds - value), color=colour, marker="o",
                      markersize=5, linewidth=1.2, elinewidth=0.8, capsize=2,
                      label=f"depth {report.depth}")  # fmt: skip
    axes.set_xticks(place, [f"{size}\n({main.size[size]['rows']:,})" for size in sizes])
    axes.set_xlabel("size (puzzles)")
    percent_axis(axes, "exact accuracy")
    legend_above(axes, 6)
    note = f"breadth {main.breadth}, stop {main.stop}; bars: 95% interval"
    title(figure, "Exact accuracy by size and depth", main, note)
    return figure

"""How many inputs are in each regime."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eqr_core.evaluation.landscape import MEANINGS, Regime
from eqr_core.evaluation.plots.style import INK, REGIME_COLOURS, legend_above, sheet, title
from eqr_core.evaluation.summary import Evaluation

ORDER: tuple[Regime, ...] = ("d", "c", "b", "a", "undecided")
NARROW = 0.045
"""Shares below this have no room for their count."""


def bars(found: Evaluation) -> Figure | None:
    """A bar of regimes for all inputs, each rating class and each source."""
    entries = [] if found.landscape is None else found.landscape.table()
    if not entries:
        return None
    figure, axes = sheet(7.8, 1.9 + 0.36 * len(entries))
    changes = [a["by"] != b["by"] for a, b in itertools.pairwise(entries)]
    place = np.arange(len(entries)) + 0.4 * np.cumsum([0, *changes])
    left = np.zeros(len(entries))
    for regime in ORDER:
        counts = np.array([entry["regimes"][regime] for entry in entries])
        share = counts / np.array([entry["inputs"] for entry in entries])
        label = f"{regime}: {MEANINGS[regime]}"
        axes.barh(place, share, left=left, height=0.72, color=REGIME_COLOURS[regime],
                  edgecolor="white", linewidth=0.6, label=label)  # fmt: skip
        dark = regime in ("d", "a")
        for y, start, width, count in zip(place, left, share, counts, strict=True):
            if width >= NARROW:
                axes.text(start + width / 2, y, f"{count:,}", ha="center", va="center",
                          fontsize=8, color="white" if dark else INK)  # fmt: skip
        left = left + share
    names = {"all": "all", "rating": "rating {}", "source": "{}"}
    axes.set_yticks(
        place, [f"{names[e['by']].format(e['name'])} ({e['inputs']:,})" for e in entries]
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the inputs (counts in the bars)")
    legend_above(axes, 2)
    main = found.main
    title(figure, "Regime of each input's landscape", main,
          f"{main.breadth} trajectories of depth {main.depth} each")  # fmt: skip
    return figure

"""What all plots share: canvas, colours, titles, units."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from eqr_core.evaluation.report import Report

INK, PALE, GRID = "#1f2933", "#66727f", "#e3e7eb"
BLUE, ORANGE = "#2563ab", "#d1601f"
REGIME_COLOURS = {
    "d": "#2f7d5b",
    "c": "#8fc1a0",
    "b": "#e3b23c",
    "a": "#b5432e",
    "undecided": "#c3cad1",
}


MOST_NAMES = 2
"""Files that are named below a figure; more would not fit."""


def sheet(width: float, height: float, **layout: Any) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, as `Figure.subplots` gives them."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(**layout)
    for one in axes.flat if hasattr(axes, "flat") else [axes]:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(PALE)
        one.tick_params(colors=INK, labelsize=9)
        one.xaxis.label.set_color(INK)
        one.yaxis.label.set_color(INK)
        one.set_axisbelow(True)
    return figure, axes


def title(figure: Figure, text: str, report: Report, note: str = "") -> None:
    """What is shown, and below it on what it was measured."""
    names = [name.rsplit("/", 1)[-1] for name in report.data.split(", ")]
    data = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} files"
    about = f"{report.model} on {data}, {plural(report.rows, 'puzzle')}"
    below = f"{about}; {note}" if note else about
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    figure.text(0.01, 0.0, below, fontsize=8, color=PALE, va="bottom")
    figure.get_layout_engine().set(rect=(0, 0.045, 1, 0.955))  # type: ignore[union-attr,call-arg]


def percent_axis(axes: Axes, label: str) -> None:
    """A vertical axis of shares from 0 to 1, shown in percent."""
    axes.set_ylim(-0.02, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel(label)
    axes.grid(axis="y", color=GRID)


def plain_log_axis(axes: Axes) -> None:
    """A logarithmic horizontal axis whose ticks are plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_above(axes: Axes, columns: int) -> None:
    """The legend between the title and the plot."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
                fontsize=8, borderaxespad=0.2)  # fmt: skip


def plural(count: int, unit: str) -> str:
    """A count with its unit."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share in percent, with a decimal where there is one to show."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"

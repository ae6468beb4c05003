"""The document of a load as tables and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eqr_core.errors import DataError
from eqr_core.extras import how_to_install
from service.bench.load import ANSWERED, Sample


def show(document: dict[str, Any], console: Console) -> None:
    """Print the document."""
    one = document
    how = (
        f"{one['concurrency']} in flight"
        if one["loop"] == "closed"
        else f"{one['rate']:g} requests/s, at random times"
    )
    puzzles = one["puzzles_per_request"]
    size = f" of {puzzles} puzzles" if puzzles > 1 else ""
    title = f"{one['endpoint']}: {how}{size}, {one['seconds']:.1f} s"
    table = Table(title=title + (", interrupted" if one["interrupted"] else ""), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    rows = {
        "throughput": f"{one['throughput']:.1f} puzzles/s",
        f"goodput, within {one['slo_ms']:g} ms": f"{one['goodput']:.1f} puzzles/s",
        "answered / shed / errors": f"{one['answered']} / {one['shed']} / {one['errors']}",
        "accuracy": _share(one["accuracy"]),
        "verified": _share(one["verified"]),
        "mean iterations, NFE": f"{_number(one['mean_iterations'])}, {_number(one['mean_nfe'])}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    others = {code: count for code, count in one["codes"].items() if code != ANSWERED}
    for code, count in others.items():
        table.add_row(code, str(count), style="red")
    console.print(table)
    console.print(_latencies(one))
    if len(one["bands"]) > 1:
        console.print(_bands(one["bands"]))


def _latencies(one: dict[str, Any]) -> Table:
    table = Table("milliseconds", "p50", "p95", "p99", "mean", "max")
    for name, words in (
        ("latency_ms", "answers"),
        ("added_ms", "of it, outside the engine"),
        ("shed_latency_ms", "sheds"),
        ("send_lag_ms", "sent late by"),
    ):
        if one[name]:
            table.add_row(words, *(f"{value:.1f}" for value in one[name].values()))
    return table


def _bands(bands: Sequence[dict[str, Any]]) -> Table:
    table = Table("rating", "puzzles", "answered", "accuracy", "p50 ms", "p95 ms", "p99 ms")
    for band in bands:
        times = band["latency_ms"] or {}
        table.add_row(
            band["rating"],
            str(band["puzzles"]),
            str(band["answered"]),
            _share(band["accuracy"]),
            *(_number(times.get(name)) for name in ("p50", "p95", "p99")),
        )
    return table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def plot(samples: Sequence[Sample], document: dict[str, Any], out: Path) -> None:
    """Draw the latencies' distribution, and latency over time, into `out` (its suffix decides).

    DataError where matplotlib is missing or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise DataError(f"--plot needs matplotlib: {how_to_install('train')}") from None
    kinds = {
        "answered": [one for one in samples if any(i.code == ANSWERED for i in one.items)],
        "shed": [one for one in samples if all(i.shed for i in one.items)],
    }
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, kept in kinds.items():
        if kept:
            times = sorted(1e3 * one.latency for one in kept)
            shares = [(number + 1) / len(times) for number in range(len(times))]
            left.step(times, shares, where="post", label=f"{name} ({len(times)})")
            right.plot([one.meant for one in kept], [1e3 * one.latency for one in kept], ".", ms=3)
    left.axvline(document["slo_ms"], color="grey", linestyle=":", label="SLO")
    left.set(xscale="log", xlabel="latency, ms", ylabel="share of requests", ylim=(0, 1.02))
    left.legend()
    right.set(yscale="log", xlabel="meant to go, s", ylabel="latency, ms")
    figure.suptitle(
        f"{document['endpoint']}, {document['loop']} loop: "
        f"{document['throughput']:.1f} puzzles/s, goodput {document['goodput']:.1f}"
    )
    try:
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"{out}: {error}") from None

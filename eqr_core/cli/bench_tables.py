"""What `eqr bench engine` found, in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table


def print_tables(document: dict[str, Any]) -> None:
    """A line on what was run, then a table for each part."""
    console = Console()
    ratings = ", ".join(f"{count} rated {name}" for name, count in document["ratings"].items())
    budget = document["budget"]
    console.print(
        f"{document['model']} ({document['arithmetic']}) on {document['puzzles']} puzzles "
        f"{document['size']}: {ratings}\nD {budget['depth']}, B {budget['breadth']}, "
        f"{document['concurrency']} in flight, {document['slots']} slots of "
        f"{document['bytes_per_slot'] / 1024:,.0f} KiB, torch {document['torch']}, "
        f"{document['threads']} threads",
        highlight=False,
        soft_wrap=True,
    )
    draw: dict[str, Callable[[Any], Table]] = {
        "throughput": _throughput,
        "roofline": _roofline,
        "start": _start,
        "crowd": _crowd,
        "company": _company,
    }
    for part, table in draw.items():
        if part in document:
            console.print(table(document[part]))


def _table(title: str, *names: str, caption: str | None = None) -> Table:
    table = Table("", title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _throughput(found: dict[str, Any]) -> Table:
    fixed = found["fixed"]
    reached = "" if fixed["reached"] in (None, True) else ", which is less accurate"
    table = _table(
        "puzzles a second",
        *("processor", "clock", "NFE", "exact", "engine is"),
        caption=f"static batches: D {fixed['depth']}, B {fixed['breadth']}{reached}; engine: "
        f"slots busy {found['slots_busy']:.0%}, median {found['median_latency_ms']:,.0f} ms, p99 "
        f"{found['p99_latency_ms']:,.0f} ms",
    )
    for row in found["rows"]:
        exact = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        table.add_row(
            row["name"],
            f"{row['puzzles_per_second']:,.3g}",
            f"{row['puzzles_per_wall_second']:,.3g}",
            f"{row['nfe']:,.1f}",
            exact,
            f"{row['engine_is']:,.1f}x",
        )
    return table


def _roofline(found: dict[str, Any]) -> Table:
    peaks = found["peaks"]
    operators = found["operators"]
    table = _table(
        "the runner, a second of processor time",
        *operators,
        caption=f"measured peaks: float32 {peaks['float32_flops'] / 1e9:,.0f} GFLOP/s, bfloat16 "
        f"{peaks['bfloat16_flops'] / 1e9:,.0f} GFLOP/s, copies {peaks['copy_bytes'] / 1e9:,.1f} "
        "GB/s",
    )
    lines: dict[str, Callable[[Any], str]] = {
        "arithmetic": lambda roof: roof["arithmetic"],
        "outer steps": lambda roof: f"{roof['steps']:,.1f}",
        "of plain torch": lambda roof: f"{roof['steps'] / roof['eager_steps']:,.2f}x",
        "GFLOP/s": lambda roof: f"{roof['flops'] / 1e9:,.1f}",
        "GB/s": lambda roof: f"{roof['bytes'] / 1e9:,.3f}",
        "of the float32 peak": lambda roof: f"{roof['of_float32']:.0%}",
        "of the roofline": lambda roof: f"{roof['of_roofline']:.0%}",
        "of the peak in six products": lambda roof: (
            "" if roof["of_split"] is None else f"{roof['of_split']:.0%}"
        ),
    }
    for name, show in lines.items():
        table.add_row(name, *(show(roof) for roof in operators.values()))
    return table


def _start(found: dict[str, Any]) -> Table:
    table = _table("process start to first answer, seconds", "processor", "clock", "to eager")
    for name, one in found.items():
        ratio = one["cpu"] / found["eager"]["cpu"]
        table.add_row(name, f"{one['cpu']:.2f}", f"{one['wall']:.2f}", f"{ratio:.2f}x")
    return table


def _crowd(found: list[dict[str, Any]]) -> Table:
    table = _table("an easy puzzle's latency, ms", "median", "p99", "p99 to alone")
    for line in found:
        alone, crowded = line["alone"], line["crowded"]
        table.add_row("alone", f"{alone['median_ms']:.1f}", f"{alone['p99_ms']:.1f}", "")
        table.add_row(
            f"with {crowded['hard']} hard trajectories of {crowded['requests']} requests",
            f"{crowded['median_ms']:.1f}",
            f"{crowded['p99_ms']:.1f}",
            f"{line['p99_ratio']:.2f}x",
        )
    return table


def _company(found: dict[str, int]) -> Table:
    table = _table("answers that differ from those alone", "puzzles")
    for name, count in found.items():
        table.add_row(name, str(count))
    return table

"""A run's bars and kills, as a document and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.kills import RECOVERY_BAR_SECONDS, Kill
from benchmarks.chaos.ledger import Ledger


def document_of(
    kills: Sequence[Kill], ledger: Ledger, wanted: int, interrupted: bool
) -> dict[str, Any]:
    """Plain values. `passed` says whether no bar was broken and all kills took place."""
    slow = sum(not kill.in_time for kill in kills)
    return {
        "passed": not ledger.faults and not slow and len(kills) == wanted and not interrupted,
        "interrupted": interrupted,
        "kills": [asdict(kill) for kill in kills],
        "slow_recoveries": slow,
        "answered": dict(ledger.answered),
        "failed": dict(Counter(failure.code for failure in ledger.failures)),
        "jobs": len(ledger.jobs),
        "faults": ledger.faults,
    }


def show(document: dict[str, Any], console: Console) -> None:
    """Print the document."""
    title = f"kill -9 under load; recovery within {RECOVERY_BAR_SECONDS:g} s"
    table = Table("", "killed", title=title, title_justify="left")
    table.add_column("recovery, s", justify="right")
    table.add_column("answers meanwhile", justify="right")
    table.add_column("ended without an answer")
    for kill in document["kills"]:
        seconds = kill["recovery_seconds"]
        slow = seconds is None or seconds > RECOVERY_BAR_SECONDS
        told = "never" if seconds is None else f"{seconds:.1f}"
        codes = ", ".join(f"{count} {code}" for code, count in kill["failures"].items())
        table.add_row(
            str(kill["number"]),
            kill["kind"],
            f"[red]{told}" if slow else told,
            str(kill["answered"]),
            codes,
        )
    console.print(table)
    answered = ", ".join(f"{count} {kind}" for kind, count in document["answered"].items())
    console.print(f"answers, all of them checked: {answered}; {document['jobs']} jobs accepted")
    for fault in document["faults"][:20]:
        console.print(f"[red]fault:[/] {fault}", highlight=False)
    console.print("[green]passed" if document["passed"] else "[red]not passed")

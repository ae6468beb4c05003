"""The parts of `eqr bench engine`, and all of them as one document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch

from eqr_core.bench.crowd import compare_company, measure_arrivals
from eqr_core.bench.match import Fixed
from eqr_core.bench.peaks import measure_peaks
from eqr_core.bench.roofline import measure_roof, paper_operator
from eqr_core.bench.start import measure_starts
from eqr_core.bench.throughput import measure_throughput
from eqr_core.bench.workload import Workload
from eqr_core.engine.budget import Budget
from eqr_core.engine.runner import arithmetic
from eqr_core.engine.slots import SlotPool
from eqr_core.errors import EqrError, shown

Part = Literal["throughput", "roofline", "start", "crowd", "company"]
PARTS: tuple[Part, ...] = get_args(Part)

CROWD = 512
"""Hard trajectories."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long. EqrError names a part that there is not."""

    parts: tuple[Part, ...] = PARTS
    budget: Budget = field(default_factory=Budget)
    concurrency: int = 64
    slots: int = 64
    batch: int = 64
    """Rows of a static batch."""
    seconds: float = 5.0
    """Processor time for each kind of static batch, at least."""
    arrivals: int = 100
    fixed: Fixed | None = None
    """Budget of static batches; None: the smallest that is as accurate as the engine."""

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise EqrError(f"part: {shown(part)} is not one of {', '.join(PARTS)}")


def run_suite(workload: Workload, plan: Plan, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure and return plain values for JSON; `note` is told what is going on."""
    document: dict[str, Any] = {
        "model": workload.card.name,
        "arithmetic": arithmetic(workload.card.operator),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "puzzles": len(workload.puzzles),
        "size": workload.task.size,
        "ratings": workload.ratings(),
        "budget": {"depth": plan.budget.depth, "breadth": plan.budget.breadth},
        "concurrency": plan.concurrency,
        "slots": plan.slots,
        "bytes_per_slot": bytes_per_slot(workload),
    }
    measures: dict[Part, Callable[[], Any]] = {
        "throughput": lambda: _throughput(workload, plan, note),
        "roofline": lambda: _roofline(workload, plan, note),
        "start": lambda: {name: asdict(one) for name, one in measure_starts(workload).items()},
        "crowd": lambda: _crowd(workload, plan, note),
        "company": lambda: compare_company(workload, plan.budget, lambda: note("company")),
    }
    for part in PARTS:
        if part in plan.parts:
            note(part)
            document[part] = measures[part]()
    return document


def bytes_per_slot(workload: Workload) -> int:
    """State and embedding of one trajectory."""
    pool = SlotPool(workload.operator, 1)
    return sum(part.nbytes for part in (*pool.state, pool.embedding))


def _throughput(workload: Workload, plan: Plan, note: Callable[[str], None]) -> dict[str, Any]:
    found = measure_throughput(
        workload,
        plan.budget,
        plan.concurrency,
        plan.slots,
        plan.batch,
        plan.seconds,
        plan.fixed,
        note,
    )
    return asdict(found)


def _roofline(workload: Workload, plan: Plan, note: Callable[[str], None]) -> dict[str, Any]:
    peaks = measure_peaks()
    operators = {workload.card.name: workload.operator, "paper, hidden 512": paper_operator()}
    roofs = {}
    for name, operator in operators.items():
        note(f"roofline of {name}")
        roofs[name] = asdict(measure_roof(operator, plan.slots, peaks))
    return {"peaks": asdict(peaks), "operators": roofs}


def _crowd(workload: Workload, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """As many requests as trajectories, and few wide ones."""
    lines = []
    for requests in (CROWD, 4):
        note(f"arrivals while {CROWD} trajectories of {requests} requests run")
        alone, crowded = measure_arrivals(workload, plan.slots, CROWD, requests, plan.arrivals)
        ratio = crowded.p99_ms / alone.p99_ms
        lines.append({"alone": asdict(alone), "crowded": asdict(crowded), "p99_ratio": ratio})
    return lines

"""An answer as JSON (DESIGN section 5): one form for `POST /solve` and `eqr solve --json`."""

from __future__ import annotations

import math
from typing import Any

from eqr_core.engine.answer import Answer


def answer_document(answer: Answer) -> dict[str, Any]:
    """Plain values that JSON has: an infinite residual is None, times are in milliseconds.

    The trajectories are left out; who shows them has a form of its own.
    """
    queue, spent = answer.queue_seconds * 1000, answer.solve_seconds * 1000
    return {
        "id": answer.id,
        "task": answer.task,
        "model": answer.model,
        "grid": [list(row) for row in answer.grid],
        "text": answer.text,
        "residual": answer.residual if math.isfinite(answer.residual) else None,
        "converged": answer.converged,
        "verified": answer.verified,
        "finish_reason": answer.finish_reason,
        "iterations": answer.iterations,
        "nfe": answer.nfe,
        "layers": answer.layers,
        "breadth": {
            "started": answer.started,
            "converged": answer.finished_converged,
            "lost": answer.lost,
        },
        "agreement": answer.agreement,
        "confidence": answer.confidence,
        "seed": answer.seed,
        "cached": False,
        "timing_ms": {"queue": queue, "solve": spent, "total": queue + spent},
    }

"""Reports in the card of the checkpoint that they are on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from eqr_core.errors import DataError, ModelError
from eqr_core.evaluation.report import Report
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import read_card, update_card

TERMS = (
    "data", "depth", "breadth", "nfe", "tolerance", "stop", "halt", "patience", "selection", "noise"
)  # fmt: skip
"""What two reports must share to be on the same thing."""
BEFORE = {"halt": "residual", "patience": 1}
"""What reports are on that do not say it."""


def record_report(folder: Path, report: Report, data: str) -> Card:
    """Add `report` to the results in the card of `folder`; `data` is how the card names the file.

    A report on the same terms takes the place of an earlier one on as many rows or fewer.
    ModelError where the checkpoint has changed since, DataError where more rows are on record.
    """
    card = read_card(folder)
    if card.digest != report.digest:
        raise ModelError(f"{card.name}: the checkpoint has changed since; nothing was recorded")
    result = json.loads(json.dumps({**report.to_dict(), "data": data}))
    same = [r for r in card.results if _terms(r) == _terms(result)]
    for earlier in same:
        if earlier["rows"] > report.rows:
            raise DataError(
                f"rows is {report.rows}; the card already has this on {earlier['rows']} rows"
            )
    others = [r for r in card.results if r not in same]
    card = replace(card, results=(*others, result))
    update_card(folder, card)
    return card


def _terms(result: dict[str, Any]) -> list[Any]:
    return [result.get(name, BEFORE.get(name)) for name in TERMS]

"""Whether this implementation computes what the reference does, from stored vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eqr_core.errors import EqrError, ModelError
from eqr_core.evaluation.parity.comparison import Comparison, failed, read_json
from eqr_core.evaluation.parity.facts import compare_facts
from eqr_core.evaluation.parity.model import compare_model
from eqr_core.evaluation.parity.selection import compare_selection

__all__ = ["Comparison", "check_parity", "render", "run"]

CONFIG = "config.json"
FACTS = "facts.json"


def check_parity(folder: Path) -> list[Comparison]:
    """Compare every fixture folder in `folder`, and its facts.json; sizes come from the files.

    ModelError where there is nothing to compare. A fixture that cannot be read is a row that
    is not ok, so that the others still show.
    """
    fixtures = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    rows = [row for fixture in fixtures for row in _compared(fixture, _compare_folder)]
    if (folder / FACTS).is_file():
        rows += _compared(folder / FACTS, compare_facts)
    if not rows:
        raise ModelError(f"{folder}: no fixture folders with a {CONFIG}, and no {FACTS}")
    return rows


def render(comparisons: list[Comparison]) -> Table:
    """The comparisons as a table."""
    equal = sum(row.ok and not math.isnan(row.error) for row in comparisons)
    left = sum(row.ok and math.isnan(row.error) for row in comparisons)
    caption = f"{equal} of {len(comparisons)} equal within tolerance"
    table = Table(caption=caption + f", {left} not compared" * bool(left))
    for title in ("fixture", "tensor", "max abs error", "tolerance", "ok"):
        right = title in ("max abs error", "tolerance")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for row in comparisons:
        error = row.note or f"{row.error:.1e}"
        tolerance = "" if math.isnan(row.tolerance) else f"{row.tolerance:.0e}"
        good = "–" if math.isnan(row.error) else "[green]yes[/green]"
        mark = good if row.ok else "[bold red]NO[/bold red]"
        table.add_row(row.fixture, row.name, error, tolerance, mark)
    return table


def run(folder: Path, console: Console | None = None) -> int:
    """Print the table of `check_parity`; 0 where all is equal, 1 where something is not."""
    comparisons = check_parity(folder)
    (console or Console()).print(render(comparisons))
    return 0 if all(row.ok for row in comparisons) else 1


def _compare_folder(folder: Path) -> list[Comparison]:
    selects = "model_fixture" in read_json(folder / CONFIG)
    return compare_selection(folder) if selects else compare_model(folder)


def _compared(path: Path, compare: Callable[[Path], list[Comparison]]) -> list[Comparison]:
    try:
        return compare(path)
    except EqrError as error:
        return [failed(path.stem, "", str(error))]
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        note = f"not laid out as a fixture ({type(error).__name__}: {error})"
        return [failed(path.stem, "", note)]

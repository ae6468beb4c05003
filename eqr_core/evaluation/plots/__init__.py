"""The plots of an evaluation, as PNG files. Only here is matplotlib needed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from eqr_core.errors import DataError, EqrError
from eqr_core.evaluation.examples import Example
from eqr_core.evaluation.summary import Evaluation
from eqr_core.extras import how_to_install


def check(folder: Path) -> None:
    """EqrError where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise EqrError(
            f"the plots need matplotlib ({how_to_install('train')}); all else is in {folder}, and "
            "the same command draws them without measuring again"
        )


def draw(folder: Path, found: Evaluation, shown: Sequence[Example] = ()) -> list[Path]:
    """Draw what was measured, and the puzzles `shown`, into `folder` and return the files.

    What was not measured is left out: a single budget has no heat map, an adaptive one no
    landscape. EqrError where matplotlib is missing, DataError where a file cannot be written.
    """
    check(folder)
    from eqr_core.evaluation.plots import budgets, examples, regimes, sizes, trajectories

    figures = {
        "accuracy": budgets.heat_map(found),
        "nfe": budgets.accuracy_by_nfe(found),
        "residual": trajectories.accuracy_by_residual(found),
        "reliability": trajectories.reliability(found),
        "iterations": trajectories.iterations(found),
        "landscape": regimes.bars(found),
        "sizes": sizes.accuracy_by_size(found),
        "examples": examples.answers(found, shown),
    }
    files = []
    for name, figure in figures.items():
        if figure is None:
            continue
        path = folder / f"{name}.png"
        try:
            figure.savefig(path, dpi=160)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        files.append(path)
    return files

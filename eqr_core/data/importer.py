"""Import of the Sudoku-Extreme CSV, `source,question,answer,rating`, from a file or the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eqr_core.data.packed import PackedPuzzles, faults, join, pack, usual_task
from eqr_core.data.puzzles import read_chunks
from eqr_core.errors import DataError
from eqr_core.extras import how_to_install

SPARE_ROWS = 100_000
"""Rows that may wait in memory for the draw of a sample."""

SHOWN_FAULTS = 5
"""Bad rows after which an import stops, and which its error names."""

DATASET = re.compile(r"[\w.-]+/[\w.-]+")


def find_source(source: str, file: str) -> Path:
    """The local file `source`, or `file` of the Hugging Face dataset `source`, downloaded.

    The Hub's cache and variables hold (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE). DataError where there
    is neither such a file nor such a dataset, or no network.
    """
    path = Path(source)
    if path.is_file():
        return path
    if not DATASET.fullmatch(source) or path.suffix in (".csv", ".gz"):
        raise DataError(f"{source}: no such file, and not the id of a dataset such as owner/name")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise DataError(
            f"{source}: no such file; to download the dataset of this name: {how_to_install('hub')}"
        ) from None
    try:
        return Path(hf_hub_download(source, file, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} of the dataset {source} cannot be had from the Hugging Face Hub "
            f"({_why(error)}); download it elsewhere and give its path"
        ) from None


def import_puzzles(
    path: Path,
    sample: int | None = None,
    seed: int = 0,
    report: Callable[[int], None] = lambda rows: None,
) -> PackedPuzzles:
    """The puzzles of a CSV, checked row by row, in the file's order.

    With `sample` so many rows of all, drawn by `seed`; only these are kept in memory. `report`
    gets the number of rows read since the last call. DataError names the first bad lines. Whether
    a puzzle has another solution is for `check` to say.
    """
    if sample is not None and sample < 1:
        raise DataError(f"sample is {sample}; it must be at least 1")
    random = np.random.default_rng(seed)
    parts: list[PackedPuzzles] = []
    lots: list[npt.NDArray[np.float64]] = []
    read = 0
    for rows in read_chunks(path):
        task = parts[0].task if parts else usual_task(rows)
        if bad := list(islice(faults(rows, task), SHOWN_FAULTS)):
            lines = "; ".join(f"line {read + i + 2}: {fault}" for i, fault in bad)
            raise DataError(f"{path}, {lines}")
        parts.append(pack(rows))
        lots.append(random.random(len(rows)))
        read += len(rows)
        report(len(rows))
        if sample is not None and sum(map(len, parts)) > sample + SPARE_ROWS:
            parts, lots = _drawn(parts, lots, sample)
    if not parts:
        raise DataError(f"{path}: there are no puzzles in it")
    if sample is not None:
        if sample > read:
            raise DataError(f"sample is {sample}; {path} has {read} rows")
        parts, lots = _drawn(parts, lots, sample)
    return join(parts)


def _drawn(
    parts: list[PackedPuzzles], lots: list[npt.NDArray[np.float64]], most: int
) -> tuple[list[PackedPuzzles], list[npt.NDArray[np.float64]]]:
    """The `most` rows with the lowest lots."""
    puzzles, lot = join(parts), np.concatenate(lots)
    kept = np.sort(lot.argsort(kind="stable")[:most])
    return [puzzles.take(kept)], [lot[kept]]


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"

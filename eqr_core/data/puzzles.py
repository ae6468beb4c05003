"""Puzzle files: CSV `source,question,answer,rating` (the Sudoku-Extreme format), plain or gzip."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from eqr_core.errors import DataError

COLUMNS = ["source", "question", "answer", "rating"]


@dataclass(frozen=True)
class PuzzleRow:
    """One line of a puzzle file; grids are in the task's text form."""

    source: str
    question: str
    answer: str
    rating: int


def open_text(path: Path, mode: str = "r") -> IO[str]:
    """Open a text file, through gzip where its name ends in ``.gz``."""
    if path.suffix == ".gz":
        return gzip.open(path, mode + "t", encoding="utf-8", newline="")
    return path.open(mode, encoding="utf-8", newline="")


def read_puzzles(path: Path, limit: int | None = None) -> Iterator[PuzzleRow]:
    """Rows of a puzzle file in order; DataError names the file and the line at fault."""
    try:
        with open_text(path) as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if header != COLUMNS:
                raise DataError(f"{path}: the first line is {header}; it must be {COLUMNS}")
            for number, row in enumerate(reader, start=2):
                if limit is not None and number > limit + 1:
                    return
                if len(row) != len(COLUMNS) or not row[3].lstrip("-").isdigit():
                    raise DataError(f"{path}, line {number}: {row} is not {COLUMNS}")
                yield PuzzleRow(row[0], row[1], row[2], int(row[3]))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from None


def write_puzzles(path: Path, rows: Iterator[PuzzleRow] | list[PuzzleRow]) -> int:
    """Write a puzzle file and return the number of rows."""
    count = 0
    with open_text(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([row.source, row.question, row.answer, row.rating])
            count += 1
    return count


def digit_tokens(texts: list[str]) -> npt.NDArray[np.uint8]:
    """Sudoku texts of one length as tokens, uint8 [rows, cells]; ``.`` and ``0`` are blanks."""
    table = np.zeros(128, dtype=np.uint8)
    for blank in b".0":
        table[blank] = 1
    for value, char in enumerate(b"123456789ABCDEFG", start=2):
        table[char] = value
    raw = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    return table[raw.reshape(len(texts), -1)]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

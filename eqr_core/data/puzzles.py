"""Puzzle files: CSV `source,question,answer,rating` (the Sudoku-Extreme format), plain or gzip."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

from eqr_core.errors import DataError

COLUMNS = ["source", "question", "answer", "rating"]
RATING = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True)
class PuzzleRow:
    """One line of a puzzle file; grids are in the task's text form."""

    source: str
    question: str
    answer: str
    rating: int


def open_text(path: Path, mode: Literal["r", "w"] = "r") -> IO[str]:
    """Open a text file, through gzip where its name ends in ``.gz``.

    What is written has no name and no time in it: the same text gives the same bytes.
    """
    if path.suffix != ".gz":
        return path.open(mode, encoding="utf-8", newline="")
    if mode == "r":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return io.TextIOWrapper(_NamelessGzip(path), encoding="utf-8", newline="")


class _NamelessGzip(gzip.GzipFile):
    """A gzip file for writing, without its name and time."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        super().__init__(filename="", mode="wb", fileobj=self.file, mtime=0)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.file.close()


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
                if len(row) != len(COLUMNS) or not RATING.fullmatch(row[3]):
                    raise DataError(f"{path}, line {number}: {row} is not {COLUMNS}")
                yield PuzzleRow(row[0], row[1], row[2], int(row[3]))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: {error}") from None


def read_chunks(path: Path, rows: int = 8192) -> Iterator[list[PuzzleRow]]:
    """The rows of a puzzle file, `rows` at a time. DataError as `read_puzzles`."""
    puzzles = read_puzzles(path)
    while chunk := list(islice(puzzles, rows)):
        yield chunk


def write_puzzles(path: Path, rows: Iterator[PuzzleRow] | list[PuzzleRow]) -> int:
    """Write a puzzle file and return the number of rows; DataError where it cannot be written."""
    count = 0
    try:
        with open_text(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow([row.source, row.question, row.answer, row.rating])
                count += 1
    except OSError as error:
        raise DataError(f"{path}: {error}") from None
    return count


def digit_tokens(texts: list[str]) -> npt.NDArray[np.uint8]:
    """Sudoku texts of one length as tokens, uint8 [rows, cells]; ``.`` and ``0`` are blanks.

    DataError where the lengths differ or a character is no digit.
    """
    lengths = {len(text) for text in texts}
    if len(lengths) != 1:
        raise DataError(f"puzzles of one length are needed, not of {sorted(lengths)} cells")
    table = np.zeros(128, dtype=np.uint8)
    for blank in b".0":
        table[blank] = 1
    for value, char in enumerate(b"123456789ABCDEFG", start=2):
        table[char] = value
    raw = np.frombuffer("".join(texts).encode("ascii", errors="replace"), dtype=np.uint8)
    tokens = table[raw].reshape(len(texts), *lengths)
    unknown = (tokens == 0).any(axis=1)
    if unknown.any():
        raise DataError(f"{texts[int(unknown.argmax())]!r} is not a Sudoku in text form")
    return tokens

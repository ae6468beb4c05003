"""Puzzles of one size as arrays: what training and calibration read, kept as .npz, no pickle."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eqr_core.data.puzzles import PuzzleRow, digit_tokens, read_puzzles
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import BOXES, DIGITS, Sudoku

ARRAYS = ("question", "answer", "rating", "source", "sources")
SIZES = {n * n: n for n in BOXES}


@dataclass(frozen=True)
class PackedPuzzles:
    """Puzzles of one size; tokens are the Sudoku task's (1 blank, digit d is d + 1)."""

    question: npt.NDArray[np.uint8]
    """Tokens, uint8 [rows, cells]."""
    answer: npt.NDArray[np.uint8]
    """Tokens without blanks, uint8 [rows, cells]."""
    rating: npt.NDArray[np.int32]
    """Difficulty in guesses, int32 [rows]."""
    source: npt.NDArray[np.int32]
    """Index into `sources`, int32 [rows]."""
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.question)

    @property
    def cells(self) -> int:
        """Cells of one grid."""
        return int(self.question.shape[1])

    @property
    def box(self) -> tuple[int, int]:
        """Rows and columns of a box."""
        return BOXES[SIZES[self.cells]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shapes, arrays and source names, in hex; the file's form plays no part."""
        digest = hashlib.sha256()
        for name in ARRAYS[:4]:
            array = getattr(self, name)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\n".join(self.sources).encode())
        return digest.hexdigest()

    def take(self, rows: npt.NDArray[np.intp]) -> PackedPuzzles:
        """The puzzles at the indices `rows`, in that order."""
        return PackedPuzzles(
            self.question[rows],
            self.answer[rows],
            self.rating[rows],
            self.source[rows],
            self.sources,
        )

    def split(self, validation_rows: int, seed: int) -> tuple[PackedPuzzles, PackedPuzzles]:
        """(training, validation): `validation_rows` drawn by `seed`, the file's order kept."""
        if not 0 < validation_rows < len(self):
            raise DataError(
                f"validation_rows is {validation_rows}; it must be from 1 to {len(self) - 1}, "
                f"one less than the {len(self)} puzzles"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return (
            self.take(np.sort(order[validation_rows:])),
            self.take(np.sort(order[:validation_rows])),
        )

    def save(self, path: Path) -> None:
        """Write a compressed .npz at exactly `path`."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                question=self.question,
                answer=self.answer,
                rating=self.rating,
                source=self.source,
                sources=np.array(self.sources),
            )


def pack(rows: Iterable[PuzzleRow]) -> PackedPuzzles:
    """Pack Sudoku rows of one size. DataError names the first row at fault, counted from 1."""
    given = list(rows)
    if not given:
        raise DataError("there are no puzzles to pack")
    for number, fault in faults(given, len(given[0].question)):
        raise DataError(f"row {number + 1}: {fault}")
    names: dict[str, int] = {}
    source = [names.setdefault(row.source, len(names)) for row in given]
    return PackedPuzzles(
        digit_tokens([row.question for row in given]),
        digit_tokens([row.answer for row in given]),
        np.array([row.rating for row in given], dtype=np.int32),
        np.array(source, dtype=np.int32),
        tuple(names),
    )


def faults(rows: Sequence[PuzzleRow], cells: int) -> Iterator[tuple[int, str]]:
    """(Index, what is wrong) of each row that is no solved Sudoku of `cells` cells, in order.

    Whether there is another solution is not looked at.
    """
    texts = [_row_fault(row, cells) for row in rows]
    sound = [i for i, text in enumerate(texts) if text is None]
    if sound:
        broken = unsolved(digit_tokens([rows[i].answer for i in sound]))
        for k in broken.nonzero()[0]:
            texts[sound[k]] = "the answer breaks the rules"
    yield from ((i, text) for i, text in enumerate(texts) if text is not None)


def join(parts: Sequence[PackedPuzzles]) -> PackedPuzzles:
    """The puzzles of all `parts`, which are of one size, in order; at least one part."""
    names: dict[str, int] = {}
    source = []
    for part in parts:
        numbers = np.array([names.setdefault(s, len(names)) for s in part.sources], np.int32)
        source.append(numbers[part.source])
    return PackedPuzzles(
        np.concatenate([part.question for part in parts]),
        np.concatenate([part.answer for part in parts]),
        np.concatenate([part.rating for part in parts]),
        np.concatenate(source),
        tuple(names),
    )


def unpack(puzzles: PackedPuzzles) -> Iterator[PuzzleRow]:
    """The rows that `pack` would make `puzzles` of."""
    symbols = np.frombuffer((" ." + DIGITS).encode("ascii"), np.uint8)
    columns = zip(puzzles.question, puzzles.answer, puzzles.rating, puzzles.source, strict=True)
    for question, answer, rating, source in columns:
        yield PuzzleRow(
            puzzles.sources[source],
            symbols[question].tobytes().decode("ascii"),
            symbols[answer].tobytes().decode("ascii"),
            int(rating),
        )


def read_packed(path: Path, limit: int | None = None) -> PackedPuzzles:
    """The first `limit` puzzles of a file, packed (.npz) or CSV (read_puzzles). DataError."""
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    if path.suffix != ".npz":
        return pack(read_puzzles(path, limit))
    puzzles = load(path)
    return puzzles if limit is None else puzzles.take(np.arange(min(limit, len(puzzles))))


def _row_fault(row: PuzzleRow, cells: int) -> str | None:
    if cells not in SIZES:
        return f"the question has {cells} cells; a Sudoku has {', '.join(map(str, SIZES))}"
    digits = DIGITS[: SIZES[cells]]
    for name, text, allowed in (
        ("question", row.question, digits + ".0"),
        ("answer", row.answer, digits),
    ):
        if len(text) != cells:
            return (
                f"the {name} has {len(text)} cells; "
                f"the first question has {cells}, and all must be of one size"
            )
        if wrong := set(text) - set(allowed):
            return f"{min(wrong)!r} stands in the {name}, not {allowed}"
    for clue, value in zip(row.question, row.answer, strict=True):
        if clue not in (".", "0", value):
            return f"the answer has {value} where the clue is {clue}"
    return None


def load(path: Path) -> PackedPuzzles:
    """Read what `save` wrote. DataError names the file and the array at fault."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = set(ARRAYS) - set(file.files)
            if missing:
                raise DataError(f"{path}: the array {min(missing)} is missing")
            arrays = {name: file[name] for name in ARRAYS}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a packed puzzle file: {error}") from None
    if arrays["question"].ndim != 2:
        raise DataError(f"{path}: question has {arrays['question'].ndim} axes; it must have 2")
    rows, cells = arrays["question"].shape
    expected = {
        "question": ("uint8", (rows, cells)),
        "answer": ("uint8", (rows, cells)),
        "rating": ("int32", (rows,)),
        "source": ("int32", (rows,)),
    }
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise DataError(
                f"{path}: {name} is {array.dtype} {array.shape}; it must be {dtype} {shape}"
            )
    _check_values(path, arrays, cells)
    return PackedPuzzles(
        arrays["question"],
        arrays["answer"],
        arrays["rating"],
        arrays["source"],
        tuple(str(name) for name in arrays["sources"]),
    )


def unsolved(answer: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether rows, columns or boxes of `answer`, tokens [rows, cells], repeat a digit, [rows]."""
    task = Sudoku(BOXES[SIZES[answer.shape[1]]])
    grid = answer.reshape(len(answer), *task.layout.axes[:4])
    units = (grid, grid.transpose(0, 3, 4, 1, 2), grid.transpose(0, 1, 3, 2, 4))
    digits = np.arange(2, task.n + 2, dtype=np.uint8)
    bad = np.zeros(len(answer), dtype=np.bool_)
    for unit in units:
        sets = np.sort(unit.reshape(len(answer), task.n, task.n), axis=-1)
        bad |= (sets != digits).any((1, 2))
    return bad


def _check_values(path: Path, arrays: dict[str, npt.NDArray[np.generic]], cells: int) -> None:
    if cells not in SIZES or not len(arrays["question"]):
        raise DataError(f"{path}: grids of {cells} cells; a Sudoku has {list(SIZES)}")
    top = SIZES[cells] + 1
    limits = (("question", 1, top), ("answer", 2, top), ("source", 0, len(arrays["sources"]) - 1))
    for name, low, high in limits:
        values = arrays[name].astype(np.int64)
        if values.min() < low or values.max() > high:
            raise DataError(
                f"{path}: {name} holds {values.min()} to {values.max()}; the limit is "
                f"{low} to {high}"
            )
    question, answer = arrays["question"], arrays["answer"]
    if ((question != 1) & (question != answer)).any():
        raise DataError(f"{path}: an answer does not extend its question")
    if (wrong := unsolved(answer.astype(np.uint8))).any():
        raise DataError(f"{path}: answer {wrong.argmax() + 1} breaks the rules")

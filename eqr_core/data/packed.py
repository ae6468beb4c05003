"""Puzzles of one size as arrays: what training and calibration read, kept as .npz, no pickle."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eqr_core.data.forms import form_of, task_of_text
from eqr_core.data.puzzles import PuzzleRow, read_puzzles
from eqr_core.data.sudoku_form import SIZES
from eqr_core.errors import DataError, ModelError
from eqr_core.tasks import task_at
from eqr_core.tasks.base import Task

ARRAYS = ("question", "answer", "rating", "source", "sources")
TASK = "task"
"""Array of a file with the name of the task, the rows and the columns; files from before there
was more than one task lack it."""


@dataclass(frozen=True)
class PackedPuzzles:
    """Puzzles of one task and size."""

    question: npt.NDArray[np.uint8]
    """Tokens, uint8 [rows, cells]."""
    answer: npt.NDArray[np.uint8]
    """Tokens, uint8 [rows, cells]."""
    rating: npt.NDArray[np.int32]
    """Difficulty: the guesses for a Sudoku, a path's steps; int32 [rows]."""
    source: npt.NDArray[np.int32]
    """Index into `sources`, int32 [rows]."""
    sources: tuple[str, ...]
    task: Task

    def __len__(self) -> int:
        return len(self.question)

    @property
    def cells(self) -> int:
        """Cells of one grid."""
        return int(self.question.shape[1])

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
            self.task,
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
                task=np.array([self.task.name, str(self.task.rows), str(self.task.columns)]),
            )


def pack(rows: Iterable[PuzzleRow]) -> PackedPuzzles:
    """Pack rows of one task and size. DataError names the first row at fault, counted from 1."""
    given = list(rows)
    if not given:
        raise DataError("there are no puzzles to pack")
    try:
        task = task_of_text(given[0].question)
    except DataError as error:
        raise DataError(f"row 1: {error}") from None
    for number, fault in faults(given, task):
        raise DataError(f"row {number + 1}: {fault}")
    names: dict[str, int] = {}
    source = [names.setdefault(row.source, len(names)) for row in given]
    form = form_of(task.name)
    return PackedPuzzles(
        form.tokens(task, [row.question for row in given]),
        form.tokens(task, [row.answer for row in given]),
        np.array([row.rating for row in given], dtype=np.int32),
        np.array(source, dtype=np.int32),
        tuple(names),
        task,
    )


def usual_task(rows: Sequence[PuzzleRow]) -> Task | None:
    """The task and size of the first question that has one."""
    for row in rows:
        with suppress(DataError):
            return task_of_text(row.question)
    return None


def faults(rows: Sequence[PuzzleRow], task: Task | None) -> Iterator[tuple[int, str]]:
    """(Index, what is wrong) of each row that is no solved puzzle of `task`, in order.

    Whether there is another solution is not looked at. `task` is what `usual_task` says: where it
    is None, each row has its fault.
    """
    if task is None:
        for number, row in enumerate(rows):
            try:
                task_of_text(row.question)
            except DataError as error:
                yield number, str(error)
        return
    form = form_of(task.name)
    texts = [form.fault(task, row) for row in rows]
    sound = [i for i, text in enumerate(texts) if text is None]
    if sound:
        question = form.tokens(task, [rows[i].question for i in sound])
        answer = form.tokens(task, [rows[i].answer for i in sound])
        for k in form.broken(task, question, answer).nonzero()[0]:
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
        parts[0].task,
    )


def unpack(puzzles: PackedPuzzles) -> Iterator[PuzzleRow]:
    """The rows that `pack` would make `puzzles` of."""
    form = form_of(puzzles.task.name)
    questions = form.texts(puzzles.task, puzzles.question)
    answers = form.texts(puzzles.task, puzzles.answer)
    columns = zip(questions, answers, puzzles.rating, puzzles.source, strict=True)
    for question, answer, rating, source in columns:
        yield PuzzleRow(puzzles.sources[source], question, answer, int(rating))


def read_packed(path: Path, limit: int | None = None) -> PackedPuzzles:
    """The first `limit` puzzles of a file, packed (.npz) or CSV (read_puzzles). DataError."""
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    if path.suffix != ".npz":
        return pack(read_puzzles(path, limit))
    puzzles = load(path)
    return puzzles if limit is None else puzzles.take(np.arange(min(limit, len(puzzles))))


def load(path: Path) -> PackedPuzzles:
    """Read what `save` wrote. DataError names the file and the array at fault."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = set(ARRAYS) - set(file.files)
            if missing:
                raise DataError(f"{path}: the array {min(missing)} is missing")
            arrays = {name: file[name] for name in ARRAYS}
            named = file[TASK] if TASK in file.files else None
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
    task = _task(path, named, cells)
    _check_values(path, arrays, task)
    return PackedPuzzles(
        arrays["question"],
        arrays["answer"],
        arrays["rating"],
        arrays["source"],
        tuple(str(name) for name in arrays["sources"]),
        task,
    )


def _task(path: Path, named: npt.NDArray[np.generic] | None, cells: int) -> Task:
    if named is None:
        if cells not in SIZES:
            raise DataError(f"{path}: grids of {cells} cells; a Sudoku has {list(SIZES)}")
        return task_at("sudoku", SIZES[cells], SIZES[cells])
    words = [str(word) for word in named.ravel()[:4]]
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 6 for word in words[1:]):
        raise DataError(f"{path}: {TASK} is {words}; it must be a name, rows and columns")
    try:
        task = task_at(words[0], int(words[1]), int(words[2]))
    except ModelError as error:
        raise DataError(f"{path}: {error}") from None
    if task.tokens != cells:
        raise DataError(f"{path}: grids of {cells} cells; {task.name} {task.size} has others")
    return task


def _check_values(path: Path, arrays: dict[str, npt.NDArray[np.generic]], task: Task) -> None:
    form = form_of(task.name)
    if not len(arrays["question"]):
        raise DataError(f"{path}: there are no puzzles in it")
    question_limits, answer_limits = form.limits(task)
    limits = (
        ("question", *question_limits),
        ("answer", *answer_limits),
        ("source", 0, len(arrays["sources"]) - 1),
    )
    for name, low, high in limits:
        values = arrays[name].astype(np.int64)
        if values.min() < low or values.max() > high:
            raise DataError(
                f"{path}: {name} holds {values.min()} to {values.max()}; the limit is "
                f"{low} to {high}"
            )
    question, answer = (arrays[name].astype(np.uint8) for name in ("question", "answer"))
    if (wrong := form.broken(task, question, answer)).any():
        raise DataError(f"{path}: answer {wrong.argmax() + 1} does not solve its question")

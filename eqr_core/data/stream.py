"""Streams of generated Sudokus, the same for any number of processes.

A stream is made in units, each from (seed, unit number) alone; its rows come in the units' order,
and a row whose like came before is left out.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import partial
from itertools import count, islice
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from eqr_core.data.canonical import canonical_grids
from eqr_core.data.climb import Rated, climb
from eqr_core.data.generate import generate_sudoku
from eqr_core.data.lanes import Boards, search
from eqr_core.data.minimal import random_puzzles
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import DataError
from eqr_core.tasks.sudoku import DIGITS, Sudoku

POOL = 256
"""Puzzles of one climb, and random puzzles made at once."""

STEPS = 200
"""Steps of one climb at most."""

UNIT_ROWS = 256
"""Rows after which a climb ends: the next begins with other puzzles."""

SLOW_UNIT_ROWS = {4: 100, 6: 100, 9: 100, 16: 4}
"""Rows of a unit that are made one at a time, for each side of the grid."""

EMPTY_UNITS = 3
"""Units in a row without a new puzzle after which a stream gives up."""

MANY_GRIDS = 9
"""Side from which no two puzzles of a stream share a solution grid, up to symmetry. There are 2
different grids of 4×4 and 49 of 6×6."""


@dataclass(frozen=True)
class Wanted:
    """Which puzzles a stream is made of."""

    size: int
    """Side of the grid."""
    box: tuple[int, int]
    seed: int = 0
    clues: int | tuple[int, int] | None = None
    """Number of clues, or a range; None for minimal puzzles."""
    min_rating: int | None = None
    """Fewest guesses of the rating solver; where set, puzzles come from hill climbing too."""
    max_rating: int | None = None
    """Most guesses of the rating solver."""

    def __post_init__(self) -> None:
        low, high = self.min_rating, self.max_rating
        for name, value in (("seed", self.seed), ("min_rating", low), ("max_rating", high)):
            if value is not None and not 0 <= value < 2**31:
                raise DataError(f"{name} is {value}; it must be from 0 to {2**31 - 1}")
        if low is not None and high is not None and low > high:
            raise DataError(f"min_rating is {low}; max_rating is {high}, which is less")

    @property
    def one_by_one(self) -> bool:
        """Whether the puzzles come from the sequential generator."""
        return self.clues is not None or self.size > MANY_GRIDS

    def __str__(self) -> str:
        wishes = {name: getattr(self, name) for name in ("clues", "min_rating", "max_rating")}
        asked = ", ".join(f"{k}={v}" for k, v in wishes.items() if v is not None)
        return f"{self.size}x{self.size} puzzles" + (f" with {asked}" if asked else "")


Unit = Generator[tuple[str, PuzzleRow]]
"""Rows, and with each what no other row of the stream may share with it."""


def puzzle_stream(wanted: Wanted, workers: int = 1) -> Generator[PuzzleRow]:
    """Yield puzzles without end, each with exactly one solution.

    `rating` counts the guesses of the rating solver (`backtracking`) for the puzzle as written;
    with `min_rating` or `max_rating`, so does the mean over three images. The rows depend on
    `wanted` alone. With `workers` above 1 as many processes make them; close the iterator to end
    them. DataError where nothing fits, or no more.
    """
    found: set[str] = set()
    empty = 0
    units = _inline(wanted) if workers == 1 else _spread(wanted, workers)
    try:
        for unit in units:
            before = len(found)
            for like, row in unit:
                if like not in found:
                    found.add(like)
                    yield row
            empty = 0 if len(found) > before else empty + 1
            if empty == EMPTY_UNITS:
                raise DataError(f"found {len(found)} different {wanted}, and no more")
    finally:
        units.close()


def _inline(wanted: Wanted) -> Generator[Unit]:
    yield from map(partial(_unit, wanted), count())


def _unit(wanted: Wanted, number: int) -> Unit:
    """The rows of one unit."""
    if wanted.one_by_one:
        yield from _slow_unit(wanted, number)
        return
    random = np.random.default_rng([wanted.seed, wanted.size, number])
    own: set[str] = set()
    for puzzles in _batches(wanted, random):
        fit = puzzles.take(_fitting(wanted, puzzles))
        for like, row in _rows(wanted, fit):
            if like not in own:
                own.add(like)
                yield like, row
        if len(own) >= UNIT_ROWS:
            return


def _batches(wanted: Wanted, random: np.random.Generator) -> Iterator[Rated]:
    box = wanted.box
    if wanted.min_rating:
        yield from climb(box, POOL, STEPS, wanted.min_rating, wanted.max_rating, random)
        return
    question, answer = random_puzzles(box, POOL, random)
    found = search(box, question, limit=1)
    mean = found.rating.astype(np.float64)
    yield Rated(question, answer, found.rating, mean, mean)


def _fitting(wanted: Wanted, puzzles: Rated) -> npt.NDArray[np.bool_]:
    low, high = wanted.min_rating or 0, wanted.max_rating
    fits = (puzzles.rating >= low) & (puzzles.mean_rating >= low)
    if high is not None:
        fits &= (puzzles.rating <= high) & (puzzles.mean_rating <= high)
    return fits


def _rows(wanted: Wanted, puzzles: Rated) -> Unit:
    source = f"{'climbed' if wanted.min_rating else 'generated'}_{wanted.size}x{wanted.size}"
    texts = _texts(puzzles.question)
    same = texts
    if wanted.size >= MANY_GRIDS:
        same = _texts(canonical_grids(wanted.box, puzzles.answer))
    rows = zip(texts, _texts(puzzles.answer), puzzles.rating.tolist(), strict=True)
    for like, (question, answer, guesses) in zip(same, rows, strict=True):
        yield like, PuzzleRow(source, question, answer, guesses)


def _slow_unit(wanted: Wanted, number: int) -> Unit:
    seed = number << 31 | wanted.seed
    low, high = wanted.min_rating, wanted.max_rating
    most = SLOW_UNIT_ROWS[wanted.size]
    rows = generate_sudoku(Sudoku(wanted.box), most, seed, wanted.clues, low, high)
    made = 0
    try:
        for row in rows:
            yield row.question, row
            made += 1
    except DataError:
        if not made:
            raise


def _texts(boards: Boards) -> list[str]:
    symbols = np.frombuffer(("." + DIGITS).encode("ascii"), np.uint8)
    return [symbols[board].tobytes().decode("ascii") for board in boards]


def _spread(wanted: Wanted, workers: int) -> Generator[Unit]:
    """The units, made by processes; worker w makes the units w, w + workers, and so on.

    A worker waits where its pipe is full, so that rows which nobody has read stay few.
    """
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    try:
        for worker in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(wanted, worker, workers, theirs), daemon=True
            )
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        for number in count():
            yield _received(ends[number % workers])
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        for end in ends:
            end.close()


def _work(wanted: Wanted, first: int, step: int, pipe: Connection) -> None:
    """Make every `step`-th unit and send its rows, an empty message after each unit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(BrokenPipeError):
        try:
            for number in count(first, step):
                for like, row in _unit(wanted, number):
                    pipe.send_bytes(json.dumps([like, *astuple(row)]).encode())
                pipe.send_bytes(b"[]")
        except DataError as error:
            pipe.send_bytes(json.dumps({"error": str(error)}).encode())


def _received(pipe: Connection) -> Unit:
    while True:
        try:
            message = json.loads(pipe.recv_bytes())
        except EOFError:
            raise DataError("a worker process ended before its work was done") from None
        if isinstance(message, dict):
            raise DataError(message["error"])
        if not message:
            return
        like, *row = message
        yield like, PuzzleRow(*row)


def first_rows(wanted: Wanted, number: int, workers: int = 1) -> Generator[PuzzleRow]:
    """The first `number` rows of `puzzle_stream`. DataError."""
    if number < 1 or workers < 1:
        raise DataError(f"count is {number} and workers {workers}; each must be at least 1")
    stream = puzzle_stream(wanted, workers)
    try:
        yield from islice(stream, number)
    finally:
        stream.close()

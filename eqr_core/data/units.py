"""Streams of puzzles made in units, the same for any number of processes.

A stream is made in units, each from (seed, unit number) alone; its rows come in the units' order,
and a row whose like came before is left out.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Generator
from contextlib import suppress
from dataclasses import astuple
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import Protocol

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import DataError

EMPTY_UNITS = 3
"""Units in a row without a new puzzle after which a stream gives up."""

Unit = Generator[tuple[str, PuzzleRow]]
"""Rows, and with each what no other row of the stream may share with it."""


class Source(Protocol):
    """What a stream is made of. It goes to other processes, so it must pickle."""

    def unit(self, number: int) -> Unit:
        """The rows of one unit, the same whenever it is made. DataError where nothing fits."""

    def __str__(self) -> str:
        """What the puzzles are, in the plural."""


def puzzle_stream(wanted: Source, workers: int = 1) -> Generator[PuzzleRow]:
    """Yield puzzles without end, each with exactly one answer.

    The rows depend on `wanted` alone. With `workers` above 1 as many processes make them; close
    the iterator to end them. DataError where nothing fits, or no more.
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


def _inline(wanted: Source) -> Generator[Unit]:
    yield from map(wanted.unit, count())


def _spread(wanted: Source, workers: int) -> Generator[Unit]:
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


def _work(wanted: Source, first: int, step: int, pipe: Connection) -> None:
    """Make every `step`-th unit and send its rows, an empty message after each unit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(BrokenPipeError):
        try:
            for number in count(first, step):
                for like, row in wanted.unit(number):
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


def first_rows(wanted: Source, number: int, workers: int = 1) -> Generator[PuzzleRow]:
    """The first `number` rows of `puzzle_stream`. DataError."""
    if number < 1 or workers < 1:
        raise DataError(f"count is {number} and workers {workers}; each must be at least 1")
    stream = puzzle_stream(wanted, workers)
    try:
        yield from islice(stream, number)
    finally:
        stream.close()

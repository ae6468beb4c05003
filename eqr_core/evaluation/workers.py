"""Chunks of an evaluation, computed in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from eqr_core.data.puzzles import PuzzleRow
from eqr_core.errors import EqrError
from eqr_core.evaluation.rows import parse_rows
from eqr_core.evaluation.stepper import Stepper
from eqr_core.evaluation.store import Store
from eqr_core.evaluation.sweep import Settings
from eqr_core.model.checkpoint import load_checkpoint

POLL_SECONDS = 1.0
OnRow = Callable[[bool], None]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; everything in it can be sent to another process."""

    checkpoint: Path
    settings: Settings
    folder: Path
    slots: int


def compute(
    job: Job, rows: Sequence[PuzzleRow], chunks: Sequence[range], workers: int, on_row: OnRow
) -> None:
    """Compute and store `chunks`, with `workers` processes where that is more than one.

    `on_row` is called with each puzzle's outcome in the largest cell. Which process computes a
    chunk has no part in its result. EqrError when a worker dies; the chunks that are done stay.
    """
    if workers > 1 and len(chunks) > 1:
        _share_out(job, rows, chunks, min(workers, len(chunks)), on_row)
        return
    work = _worker(job, on_row)
    for chunk in chunks:
        work(chunk, rows[chunk.start : chunk.stop])


def _worker(job: Job, on_row: OnRow) -> Callable[[range, Sequence[PuzzleRow]], None]:
    weights, card = load_checkpoint(job.checkpoint)
    if card.digest != job.settings.digest:
        raise EqrError(f"{card.name}: the checkpoint has changed since the evaluation began")
    stepper = Stepper(weights, card, job.settings, job.slots)
    store = Store(job.folder, job.settings)

    def work(chunk: range, rows: Sequence[PuzzleRow]) -> None:
        puzzles = parse_rows(rows, chunk.start)
        part = stepper.run(chunk.start, puzzles, on_row)
        store.write(chunk, part)

    return work


def _share_out(
    job: Job, rows: Sequence[PuzzleRow], chunks: Sequence[range], workers: int, on_row: OnRow
) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch can hang
    tasks: Queue[Any] = context.Queue()
    news: Queue[Any] = context.Queue()
    for chunk in chunks:
        tasks.put((chunk, rows[chunk.start : chunk.stop]))
    for _ in range(workers):
        tasks.put(None)
    started: list[BaseProcess] = []
    try:
        for _ in range(workers):
            process: BaseProcess = context.Process(
                target=_serve, args=(job, tasks, news), daemon=True
            )
            process.start()
            started.append(process)
        _listen(started, news, on_row)
    finally:
        for process in started:
            if process.pid is not None:
                process.terminate()
                process.join()
        for line in (tasks, news):
            line.cancel_join_thread()
            line.close()


def _listen(started: list[BaseProcess], news: Queue[Any], on_row: OnRow) -> None:
    """Pass on what the workers report until each has said that it is done."""
    left = len(started)
    while left:
        try:
            kind, value = news.get(timeout=POLL_SECONDS)
        except queue.Empty:
            dead = next((p for p in started if p.exitcode not in (None, 0)), None)
            if dead is not None:
                raise EqrError(
                    f"a worker died (exit code {dead.exitcode}); what is done is kept, and the "
                    "same command goes on from there"
                ) from None
            continue
        if kind == "row":
            on_row(value)
        elif kind == "error":
            raise value
        else:
            left -= 1


def _serve(job: Job, tasks: Queue[Any], news: Queue[Any]) -> None:
    """A worker process: chunks until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = _worker(job, lambda right: news.put(("row", right)))
        while (task := tasks.get()) is not None:
            work(*task)
        news.put(("done", None))
    except EqrError as error:
        news.put(("error", EqrError(str(error))))
    except Exception as error:
        news.put(("error", EqrError(f"a worker failed: {type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""What a chunk of rows came to, as arrays: every outer step of every trajectory, and the cells."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from eqr_core.engine.trajectory import FinishReason
from eqr_core.errors import DataError
from eqr_core.evaluation.replay import Outcome, Replay

FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
COUNTS = ("right_cells", "verified", "converged", "iterations", "nfe", "finish_reason")
"""Columns of `Part.cells`; a finish reason is its index in FINISH_REASONS."""


@dataclass(frozen=True)
class RowRecord:
    """One row of a part."""

    steps: npt.NDArray[np.int32]
    """Outer steps computed of each trajectory, [breadth]."""
    residual: npt.NDArray[np.float32]
    """Trajectory by trajectory, [steps.sum()]."""
    prediction: npt.NDArray[np.int32]
    """Which of the row's different predictions stood after each step, [steps.sum()]."""
    right_cells: npt.NDArray[np.int32]
    """Cells that each different prediction has right, [predictions]."""
    verified: npt.NDArray[np.bool_]
    """Whether it obeys the rules and extends the input, [predictions]."""
    cells: npt.NDArray[np.int64]
    """What each cell of the sweep came to, [cells, COUNTS]."""
    score: npt.NDArray[np.float64]
    """Score of each cell's answer, [cells]."""

    def dense(
        self, depth: int, tokens: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """(residual, right) at each step of each trajectory, [breadth, depth].

        Beyond a trajectory's last step its residual is NaN and it is not right.
        """
        residual = np.full((len(self.steps), depth), np.nan, np.float32)
        right = np.zeros((len(self.steps), depth), np.bool_)
        made = np.arange(depth) < self.steps[:, None]
        residual[made] = self.residual
        right[made] = (self.right_cells == tokens)[self.prediction]
        return residual, right


@dataclass(frozen=True)
class Part:
    """The row records of one chunk, joined; `seconds` is what computing them took."""

    steps: npt.NDArray[np.int32]
    residual: npt.NDArray[np.float32]
    prediction: npt.NDArray[np.int32]
    predictions: npt.NDArray[np.int32]
    """Different predictions of each row, [rows]."""
    right_cells: npt.NDArray[np.int32]
    verified: npt.NDArray[np.bool_]
    cells: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]

    @classmethod
    def join(cls, records: Sequence[RowRecord], seconds: float) -> Part:
        """The part of `records`, at least one."""
        joined = {
            name: np.concatenate([getattr(record, name) for record in records])
            for name in ("residual", "prediction", "right_cells", "verified")
        }
        return cls(
            steps=np.stack([record.steps for record in records]),
            predictions=np.array([len(r.right_cells) for r in records], np.int32),
            cells=np.stack([record.cells for record in records]),
            score=np.stack([record.score for record in records]),
            seconds=np.array(seconds),
            **joined,
        )

    def __len__(self) -> int:
        return len(self.steps)

    def records(self) -> Iterable[RowRecord]:
        """Its rows in order."""
        step = kind = 0
        for row, (steps, count) in enumerate(zip(self.steps.sum(1), self.predictions, strict=True)):
            yield RowRecord(
                self.steps[row],
                self.residual[step : step + steps],
                self.prediction[step : step + steps],
                self.right_cells[kind : kind + count],
                self.verified[kind : kind + count],
                self.cells[row],
                self.score[row],
            )
            step, kind = step + steps, kind + count

    def save(self, path: Path) -> None:
        """Write it at `path` in one step: a reader finds all of it or nothing."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        write_whole(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> Part:
        """Read what `save` wrote; DataError where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                part = Part(**{f.name: file[f.name] for f in fields(Part)})
            rows = len(part)
            fits = (
                part.residual.shape == part.prediction.shape == (part.steps.sum(),)
                and part.right_cells.shape == part.verified.shape == (part.predictions.sum(),)
                and len(part.cells) == len(part.score) == len(part.predictions) == rows
                and part.cells.shape[2] == len(COUNTS)
            )
        except (OSError, KeyError, IndexError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: damaged ({error}); without it its rows run again") from None
        if not fits:
            raise DataError(f"{path}: damaged; without it its rows run again")
        return part


def record_replay(replay: Replay, judge: dict[bytes, tuple[int, bool]], clues: int) -> RowRecord:
    """The record of a puzzle whose cells are all decided.

    `judge` holds (right cells, verified) of each prediction; `clues` is what the input itself
    has right, which stands for an answer where no trajectory made a finite step.
    """
    numbers = np.concatenate(
        [np.frombuffer(track.prediction, np.int32) for track in replay.tracks]
        or [np.zeros(0, np.int32)]
    )
    # Numbered by first appearance in the record, whatever the order in which they were computed.
    _, first = np.unique(numbers, return_index=True)
    order = numbers[np.sort(first)]
    place = np.zeros(len(order), np.int32)
    place[order] = np.arange(len(order))
    judged = [judge[prediction] for prediction in replay.predictions]
    outcomes = replay.outcomes()
    return RowRecord(
        steps=np.array([len(track.residual) for track in replay.tracks], np.int32),
        residual=np.concatenate(
            [np.frombuffer(track.residual, np.float32) for track in replay.tracks]
        ),
        prediction=place[numbers],
        right_cells=np.array([judged[i][0] for i in order], np.int32),
        verified=np.array([judged[i][1] for i in order], np.bool_),
        cells=np.array([_counts(outcome, judge, clues) for outcome in outcomes], np.int64),
        score=np.array([outcome.score for outcome in outcomes]),
    )


def record_solved(cells: int, breadth: int, tokens: int) -> RowRecord:
    """The record of a full grid that obeys the rules: its own answer, without an outer step."""
    outcome = [tokens, 1, 1, 0, 0, FINISH_REASONS.index("converged")]
    return RowRecord(
        steps=np.zeros(breadth, np.int32),
        residual=np.zeros(0, np.float32),
        prediction=np.zeros(0, np.int32),
        right_cells=np.zeros(0, np.int32),
        verified=np.zeros(0, np.bool_),
        cells=np.array([outcome] * cells, np.int64),
        score=np.zeros(cells),
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    pending = path.with_name(f".{path.name}.{os.getpid()}")
    with pending.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    pending.replace(path)


def _counts(outcome: Outcome, judge: dict[bytes, tuple[int, bool]], clues: int) -> list[int]:
    right, verified = (clues, False)
    if outcome.prediction is not None:
        right, verified = judge[outcome.prediction]
    reason = FINISH_REASONS.index(outcome.finish_reason)
    return [right, verified, outcome.converged, outcome.iterations, outcome.nfe, reason]

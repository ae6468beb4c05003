"""Everything a run tells as it goes: its files, TensorBoard where installed, and the terminal."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from eqr_core.training.curve import CurveFiles
from eqr_core.training.progress import Display
from eqr_core.training.recipe import Recipe
from eqr_core.training.validate import Validation


class Watcher(Protocol):
    """Who follows a run: a `Display` in this process, or what leads to one elsewhere."""

    def __enter__(self) -> Watcher: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def trained(
        self, step: int, progress: float, seconds: float, row: dict[str, float], speed: float
    ) -> None:
        """A line of the curve."""

    def validated(self, step: int, result: Validation, best: bool) -> None:
        """One size has been validated."""


class Journal:
    """Writes each line of the curve and each validation everywhere it is kept.

    One that is not `shown` (a worker that is not the first of its team) does nothing.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        step: int,
        samples: int,
        seconds: float,
        *,
        shown: bool,
        watcher: Watcher | None = None,
    ) -> None:
        """The run goes on at `step`, with so many samples and seconds behind it."""
        self.shown = shown
        self._samples, self._seconds = samples, seconds
        if not shown:
            return
        self.files = CurveFiles(folder, step)
        self.board = _board(folder, step)
        self.display = Display(recipe.name) if watcher is None else watcher

    def __enter__(self) -> Journal:
        if self.shown:
            self.display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown:
            self.display.__exit__(kind, error, trace)
            if self.board is not None:
                self.board.close()

    def trained(
        self,
        step: int,
        progress: float,
        samples: int,
        seconds: float,
        row: dict[str, float],
    ) -> None:
        """A line of the curve; `samples` and `seconds` count from the start of the run."""
        if not self.shown:
            return
        speed = (samples - self._samples) / max(seconds - self._seconds, 1e-9)
        self._samples, self._seconds = samples, seconds
        self.files.trained(step, samples, seconds, row, speed)
        self.display.trained(step, progress, seconds, row, speed)
        if self.board is not None:
            for name, value in {**row, "samples_per_second": speed}.items():
                self.board.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, seconds: float, result: Validation, best: bool) -> None:
        """One size has been validated."""
        if not self.shown:
            return
        self.files.validated(step, seconds, result)
        self.display.validated(step, result, best)
        if self.board is not None:
            self.board.add_scalar(f"validation/exact {result.size}", result.exact, step)

    def flush(self) -> None:
        """Put on disk what TensorBoard's writer still holds; the rest is there."""
        if self.shown and self.board is not None:
            self.board.flush()


def _board(folder: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=step + 1)

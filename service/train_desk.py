"""Between the workers of a training job and whoever started it: news one way, a stop the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError

from eqr_core.training.loop import Trainer
from eqr_core.training.validate import Validation

HEED_SECONDS = 1.0
"""How long a wish to stop may go unnoticed."""

News = tuple[str, dict[str, Any]]
"""What happened, and its values by name."""


class Desk:
    """An actor where the first worker leaves news, and finds out whether it is to stop."""

    def __init__(self) -> None:
        self._news: list[News] = []
        self._stopping = False

    def tell(self, kind: str, values: dict[str, Any]) -> None:
        """Leave news."""
        self._news.append((kind, values))

    def take(self) -> list[News]:
        """The news since the last call."""
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        """Have the run save and end."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether the run is to end."""
        return self._stopping


class Wire:
    """A `Watcher` that tells the desk."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until the desk has all that was told."""
        with suppress(RayError):
            ray.get(self.desk.stopping.remote())

    def say(self, text: str) -> None:
        """One line that stays."""
        self._tell("say", text=text)

    def failed(self, text: str, code: int) -> None:
        """The run cannot go on, and a restart would not help. Known when this returns."""
        ray.get(self.desk.tell.remote("failed", {"text": text, "code": code}))

    def trained(
        self, step: int, progress: float, seconds: float, row: dict[str, float], speed: float
    ) -> None:
        """A line of the curve."""
        self._tell("trained", step=step, progress=progress, seconds=seconds, row=row, speed=speed)

    def validated(self, step: int, result: Validation, best: bool) -> None:
        """One size has been validated."""
        self._tell("validated", step=step, result=result, best=best)

    def _tell(self, kind: str, **values: Any) -> None:
        self.desk.tell.remote(kind, values)


@contextmanager
def heeding(desk: Any, trainer: Trainer) -> Iterator[None]:
    """Interrupt the trainer when the desk says so. In a thread: training waits for no answer."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(HEED_SECONDS):
            try:
                if ray.get(desk.stopping.remote()):
                    trainer.interrupt()  # again and again: the run may not have begun yet
            except RayError:  # whoever started the job is gone, and soon this worker
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()

"""When a run saves and when it stops for now."""

from __future__ import annotations

import time

SAVE_EVERY_SECONDS = 60.0


class Clock:
    """Time of one call of `Trainer.run`: seconds trained in all, and what they ask for."""

    def __init__(self, before: float, stop: float) -> None:
        """`before` seconds were trained earlier; after `stop` more it is enough for now."""
        self.before = before
        self.stop = stop
        self.started = self.last_saved = time.monotonic()

    def read(self) -> tuple[float, bool, bool]:
        """Seconds trained in all, whether to save, whether to stop."""
        now = time.monotonic()
        spent = now - self.started
        return self.before + spent, now - self.last_saved > SAVE_EVERY_SECONDS, spent >= self.stop

    def saved(self) -> None:
        """A save has just ended."""
        self.last_saved = time.monotonic()

"""What a run shows in the terminal while it goes on."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from eqr_core.training.validate import Validation


class Display:
    """A live line on standard error; plain lines where that is no terminal."""

    def __init__(self, name: str) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.progress = Progress(
            TextColumn(f"[bold]{name}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.bar = self.progress.add_task(name, total=1.0, note="")

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False)

    def trained(
        self, step: int, progress: float, seconds: float, row: dict[str, float], speed: float
    ) -> None:
        """Where the run stands: means since the last call, and samples a second."""
        note = (
            f"loss {row['loss']:.3f}, exact {row['halted_exact']:.1%} at step "
            f"{row['halting_step']:.1f}, residual {row['residual']:.3f}, {speed:.0f} samples/s"
        )
        self.progress.update(self.bar, completed=progress, note=f"step {step}: {note}")
        if self.progress.disable:
            self.say(f"step {step}, {seconds:.0f} s: {note}")

    def validated(self, step: int, result: Validation, best: bool) -> None:
        """One size has been validated."""
        mark = ", the best so far" if best else ""
        self.say(f"step {step}: {result.size} exact {result.exact:.1%} of {result.rows}{mark}")

"""The training loop: segments of each size, one optimiser, checkpoints, and going on later."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Generator

from eqr_core.errors import RecipeError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import load_checkpoint, save_checkpoint
from eqr_core.model.operator import Operator
from eqr_core.training.compiling import can_compile
from eqr_core.training.curve import CurveFiles, Window
from eqr_core.training.optimizer import Average, Optimizers
from eqr_core.training.progress import Display
from eqr_core.training.puzzles import open_puzzles
from eqr_core.training.recipe import Recipe
from eqr_core.training.segment import Segment
from eqr_core.training.state import generator_tensor, load_state, save_state
from eqr_core.training.validate import Validator

SAVE_EVERY_SECONDS = 60.0
CURVE_EVERY = 50
"""Optimiser steps that one line of the curve sums up."""


class Trainer:
    """One run of a recipe in one folder.

    The folder holds `state.safetensors` (everything needed to go on), `curve.csv`,
    `validation.csv`, `held-out-SIZE.npz` (the validation puzzles), and `best/`, the checkpoint
    with the best validation accuracy of the recipe's first size. On CPU a run is a function of
    its recipe, data and number of threads: a resumed one gives the same parameters, bit for bit.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        files: Sequence[Path] = (),
        *,
        start: Path | None = None,
        compiled: bool = True,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read or generate the puzzles. `compiled` needs a C++ compiler; without one, eager.

        `start` is a checkpoint of the same operator whose weights a new run begins with.
        `report` is called with a line now and then before the run shows its own progress.
        """
        if compiled and not can_compile():
            report("no C++ compiler found: training runs uncompiled, a few times slower")
            compiled = False
        self.recipe = recipe
        self.folder = folder
        torch.manual_seed(recipe.seed)
        self.sets = open_puzzles(recipe, files, report)
        self.generator = Generator().manual_seed(recipe.seed)
        self.operator = Operator(recipe.operator, self.sets[0].task)
        self.start_digest = self._begin_with(start) if start else None
        self.segments = [
            Segment(self.operator, one, recipe, self.generator, compiled) for one in self.sets
        ]
        self.validators = [Validator(self.operator, one, recipe, compiled) for one in self.sets]
        self.optimizers = Optimizers(self.operator, recipe)
        self.average = Average(self.operator, recipe.ema)
        self.window = Window()
        self.done = 0
        self.samples = 0
        self.seconds = 0.0
        self.best = -1.0
        self.interrupted = False

    @property
    def state_path(self) -> Path:
        """Where the run's state is kept."""
        return self.folder / "state.safetensors"

    def resume(self) -> bool:
        """Go on from the folder's state; False when there is none. RecipeError on a mismatch."""
        if not self.state_path.is_file():
            return False
        groups, values = load_state(self.state_path)
        for name, ours in self._identity().items():
            if values.get(name) != ours:
                raise RecipeError(
                    f"{self.state_path}: the run was started with another {name}; "
                    "give the same one, or another folder"
                )
        try:
            self.operator.load_state_dict(groups["weights"])
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name])
            self.optimizers.restore(groups.get("optimizer", {}))
            for index, segment in enumerate(self.segments):
                segment.restore(groups[f"segment{index}"])
            self.generator.set_state(groups["generator"]["position"])
            self.done, self.samples = values["done"], values["samples"]
            self.seconds, self.best = values["seconds"], values["best"]
        except (KeyError, RuntimeError) as error:
            raise RecipeError(f"{self.state_path}: incomplete training state: {error}") from None
        return True

    def run(self, minutes: float | None = None) -> float:
        """Train until the recipe's steps are done, `minutes` have passed, or SIGINT or SIGTERM.

        Returns the best validation accuracy, −1 before the first; `interrupted` says whether a
        signal ended it. The state is saved every minute and at the end. TrainingError leaves
        the last saved state as it is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for one in self.sets:
            one.validation.save(self.folder / f"held-out-{one.mix.size}.npz")
        files = CurveFiles(self.folder, self.done)
        started = saved = time.monotonic()
        before = self.seconds
        limit = float("inf") if minutes is None else minutes * 60
        handlers = {s: signal.signal(s, self._interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Display(self.recipe.name, self.recipe.steps, self.done) as display:
                while self.done < self.recipe.steps and not self.interrupted:
                    self._train_once()
                    now = time.monotonic()
                    self.seconds = before + now - started
                    if self.done % CURVE_EVERY == 0:
                        self._log(files, display)
                    last = self.done == self.recipe.steps
                    if last or self.done % self.recipe.validate_every == 0:
                        self._validate(files, display)
                    if now - saved > SAVE_EVERY_SECONDS:
                        self.save()
                        saved = now
                    if now - started >= limit:
                        break
                self.save()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.best

    def save(self) -> None:
        """Write the run's whole state."""
        groups = {
            "weights": self.operator.state_dict(),
            "average": self.average.shadow,
            "optimizer": self.optimizers.tensors(),
            "generator": generator_tensor(self.generator),
            **{f"segment{i}": segment.tensors() for i, segment in enumerate(self.segments)},
        }
        values = {
            **self._identity(),
            "done": self.done,
            "samples": self.samples,
            "seconds": self.seconds,
            "best": self.best,
        }
        save_state(self.state_path, groups, values)

    def _begin_with(self, start: Path) -> str:
        weights, card = load_checkpoint(start)
        if card.operator != self.recipe.operator:
            raise RecipeError(f"{start}: its operator is not the recipe's; they must be the same")
        self.operator.load_state_dict(weights)
        return card.digest

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def _train_once(self) -> None:
        segment = self._choose()
        span = self.recipe.reveal_until * self.recipe.steps
        reveal = self.recipe.reveal * max(0.0, 1 - self.done / span) if span else 0.0
        outcome = segment.step(reveal)
        norm = self.optimizers.step(self.done)
        self.average.update(self.done)
        self.done += 1
        self.samples += segment.puzzles.mix.batch
        self.window.outcomes.append(outcome)
        self.window.norms.append(norm)

    def _choose(self) -> Segment:
        if len(self.segments) == 1:
            return self.segments[0]
        shares = torch.tensor([one.mix.share for one in self.sets])
        return self.segments[int(torch.multinomial(shares, 1, generator=self.generator))]

    def _log(self, files: CurveFiles, display: Display) -> None:
        row, speed = self.window.row(), self.samples / max(self.seconds, 1e-9)
        self.window = Window()
        files.trained(self.done, self.samples, self.seconds, row, speed)
        display.trained(self.done, self.seconds, row, speed)

    def _validate(self, files: CurveFiles, display: Display) -> None:
        for index, validator in enumerate(self.validators):
            result = validator.measure(self.average.shadow)
            best = index == 0 and result.exact >= self.best
            files.validated(self.done, self.seconds, result)
            display.validated(self.done, result, best)
            if best:
                self.best = result.exact
                self._export()

    def _export(self) -> None:
        weights = {**self.operator.state_dict(), **self.average.shadow}
        card = Card(
            name=self.recipe.name,
            task=self.recipe.operator.task,
            operator=self.recipe.operator,
            sizes=(*(one.mix.size for one in self.sets), *self.recipe.untrained_sizes),
            training={
                **self._identity(),
                "done": self.done,
                "samples": self.samples,
                "seconds": round(self.seconds, 1),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "validation_rows": len(self.sets[0].validation),
                "validation_exact": self.best,
            },
        )
        save_checkpoint(self.folder / "best", weights, card)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from."""
        values = {
            "recipe": self.recipe.to_dict(),
            "data": {one.mix.size: one.digest for one in self.sets},
            "start": self.start_digest,
        }
        return dict(json.loads(json.dumps(values)))

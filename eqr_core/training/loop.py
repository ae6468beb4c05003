"""The training loop: segments of each size, one optimiser, checkpoints, and going on later."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Generator

from eqr_core.errors import RecipeError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.operator import Operator
from eqr_core.training.optimizer import Average, Optimizers
from eqr_core.training.progress import Display
from eqr_core.training.puzzles import Source, open_sources
from eqr_core.training.recipe import Recipe
from eqr_core.training.segment import Segment
from eqr_core.training.state import generator_tensor, load_state, save_state
from eqr_core.training.validate import Validator

SAVE_EVERY_SECONDS = 60.0


class Trainer:
    """One run of a recipe in one folder.

    The folder holds `state.safetensors` (everything needed to go on), `curve.csv`,
    `validation.csv`, `held-out-SIZE.npz` (the validation puzzles), and `best/`, the checkpoint
    with the best validation accuracy of the recipe's first size. On CPU a run is a function of
    its recipe, data and number of threads: a resumed one gives the same parameters, bit for bit.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, files: Sequence[Path] = (), *, fast: bool = True
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe = recipe
        self.folder = folder
        torch.manual_seed(recipe.seed)
        self.sources: list[Source] = open_sources(recipe, files, print)
        for source in self.sources:
            source.validation.save(folder / f"held-out-{source.mix.size}.npz")
        self.generator = Generator().manual_seed(recipe.seed)
        self.operator = Operator(recipe.operator, self.sources[0].task)
        self.segments = [
            Segment(self.operator, source, recipe, self.generator, fast) for source in self.sources
        ]
        self.validators = [
            Validator(self.operator, source, recipe, fast) for source in self.sources
        ]
        self.optimizers = Optimizers(self.operator, recipe)
        self.average = Average(self.operator, recipe.ema)
        self.done = 0
        self.samples = 0
        self.seconds = 0.0
        self.best = -1.0
        self.stopping = False

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
        self.operator.load_state_dict(groups["weights"])
        for name, value in groups["average"].items():
            self.average.shadow[name].copy_(value)
        self.optimizers.restore(groups["optimizer"])
        for index, segment in enumerate(self.segments):
            segment.restore(groups[f"segment{index}"])
        self.generator.set_state(groups["generator"]["position"])
        self.done, self.samples = values["done"], values["samples"]
        self.seconds, self.best = values["seconds"], values["best"]
        return True

    def run(self, minutes: float | None = None) -> float:
        """Train until the recipe's steps are done, `minutes` have passed, or SIGINT or SIGTERM.

        Returns the best validation accuracy. The state is saved at least every minute and at
        the end, whatever ended it.
        """
        started = saved = time.monotonic()
        before = self.seconds
        limit = None if minutes is None else minutes * 60
        handlers = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Display(self.folder, self.recipe.name, self.recipe.steps, self.done) as display:
                while self.done < self.recipe.steps and not self.stopping:
                    self._train_once(display)
                    now = time.monotonic()
                    self.seconds = before + now - started
                    if self.done % self.recipe.validate_every == 0:
                        self._validate(display)
                    if now - saved > SAVE_EVERY_SECONDS:
                        self.save()
                        saved = time.monotonic()
                    self.stopping |= limit is not None and now - started > limit
                if self.done % self.recipe.validate_every:
                    self._validate(display)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.save()
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

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _train_once(self, display: Display) -> None:
        segment = self._choose()
        span = self.recipe.reveal_until * self.recipe.steps
        reveal = self.recipe.reveal * max(0.0, 1 - self.done / span) if span else 0.0
        outcome = segment.step(reveal)
        norm = self.optimizers.step(self.done)
        self.average.update(self.done)
        self.done += 1
        self.samples += segment.source.mix.batch
        display.trained(self.done, self.samples, self.seconds, outcome, norm)

    def _choose(self) -> Segment:
        shares = torch.tensor([source.mix.share for source in self.sources])
        if len(self.segments) == 1:
            return self.segments[0]
        return self.segments[int(torch.multinomial(shares, 1, generator=self.generator))]

    def _validate(self, display: Display) -> None:
        for index, validator in enumerate(self.validators):
            result = validator.measure(self.average.shadow)
            best = index == 0 and result.exact >= self.best
            display.validated(self.done, self.seconds, result, best)
            if best:
                self.best = result.exact
                self._export()

    def _export(self) -> None:
        weights = {**self.operator.state_dict(), **self.average.shadow}
        card = Card(
            name=self.recipe.name,
            task=self.recipe.operator.task,
            operator=self.recipe.operator,
            sizes=(
                *(source.mix.size for source in self.sources),
                *self.recipe.untrained_sizes,
            ),
            digest="",
            parameters=self.operator.parameter_count,
            tolerance=None,
            calibration={},
            training={
                **self._identity(),
                "done": self.done,
                "samples": self.samples,
                "seconds": round(self.seconds, 1),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "validation_rows": len(self.sources[0].validation),
                "validation_exact": self.best,
            },
            results=(),
        )
        save_checkpoint(self.folder / "best", weights, card)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from."""
        values = {
            "recipe": self.recipe.to_dict(),
            "data": {source.mix.size: source.digest for source in self.sources},
        }
        return dict(json.loads(json.dumps(values)))

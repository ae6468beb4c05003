"""The training loop: segments of each size, one optimiser, checkpoints, and going on later."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from eqr_core.errors import RecipeError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import load_checkpoint, save_checkpoint
from eqr_core.model.operator import Operator
from eqr_core.training.clock import Clock
from eqr_core.training.compiling import can_compile
from eqr_core.training.curve import Window
from eqr_core.training.journal import Journal, Watcher
from eqr_core.training.optimizer import Average, Optimizers, schedule
from eqr_core.training.puzzles import open_puzzles
from eqr_core.training.recipe import Recipe
from eqr_core.training.segment import Segment
from eqr_core.training.state import byte_count, generator_tensor, load_state, save_state
from eqr_core.training.team import Team
from eqr_core.training.validate import Validator

CURVE_EVERY = 50
"""Optimiser steps that one line of the curve sums up."""
CARRY_BYTES = 12 * 2**20
"""Most that the samples' states may take to be kept in the run's state."""
LARGE_BYTES = 40 * 2**20
"""Weights and moments above this keep the moments in bfloat16."""


@dataclass(frozen=True)
class Saved:
    """The run's folder has just been written, everything in it of one step."""

    step: int
    exact: float | None
    """Accuracy of the recipe's first size where it was validated at this step."""
    last: bool
    """No step follows in this call of `Trainer.run`."""


class Trainer:
    """One run of a recipe in one folder.

    The folder holds `state.json` and its files (everything needed to go on), `curve.csv`,
    `validation.csv`, `held-out-SIZE.npz` (the validation puzzles), and `best/`, the checkpoint
    with the best validation accuracy of the recipe's first size. On CPU a run is a function of
    its recipe, data and number of threads: a resumed one gives the same parameters, bit for bit,
    unless its states are too large to keep (`CARRY_BYTES`); then its samples start again.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        files: Sequence[Path] = (),
        *,
        start: Path | None = None,
        within: float | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
        team: Team = Team(),  # noqa: B008 - frozen
        compiled: bool = True,
        report: Callable[[str], None] = lambda text: None,
        watcher: Watcher | None = None,
        after_save: Callable[[Saved], None] | None = None,
    ) -> None:
        """Read or generate the puzzles. `compiled` needs a C++ compiler; without one, eager.

        `start` is a checkpoint of the same operator whose weights a new run begins with.
        `within` minutes of training in all the run ends, its learning rate decayed; the recipe's
        steps then do not count.
        `report` is called with a line now and then before the run shows its own progress, which
        goes to `watcher`, or to this process's terminal.
        `after_save` is called by every worker of the team at the same steps: after every save,
        and the run then saves after every validation too.
        """
        if compiled and device.type == "cpu" and not can_compile():
            report("no C++ compiler found: training runs uncompiled, a few times slower")
            compiled = False
        self.recipe = recipe
        self.folder = folder
        self.limit = within * 60 if within is not None else None
        self.team = team
        self.watcher = watcher
        self.after_save = after_save
        torch.manual_seed(recipe.seed)
        self.sets = [one.to(device) for one in open_puzzles(recipe, files, report)]
        self.generator = Generator(device).manual_seed(recipe.seed)
        self.operator = Operator(recipe.operator, self.sets[0].task)
        self.start_digest = self._begin_with(start) if start else None
        self.operator.to(device)
        self.segments = [
            Segment(self.operator, one, recipe, self.generator, compiled=compiled, team=team)
            for one in self.sets
        ]
        self.validators = [
            Validator(self.operator, one, recipe, compiled, team) for one in self.sets
        ]
        self.optimizers = Optimizers(self.operator, recipe)
        self.average = Average(self.operator, recipe.ema)
        self.window = Window()
        self.done = 0
        self.samples = 0
        self.seconds = 0.0
        self.best = -1.0
        self.interrupted = False
        self._asked_to_stop = False

    @property
    def progress(self) -> float:
        """How much of the run is behind it, 0 to 1: by its steps, or by its time."""
        if self.limit is None:
            return self.done / self.recipe.steps
        return min(1.0, self.seconds / self.limit)

    def resume(self) -> bool:
        """Go on from the folder's state; False when there is none. RecipeError on a mismatch."""
        found = load_state(self.folder)
        if found is None:
            return False
        groups, values = found
        for name, ours in self._identity().items():
            if values.get(name) != ours:
                raise RecipeError(
                    f"{self.folder}: the run was started with another {name}; "
                    "give the same one, or another folder"
                )
        try:
            self.operator.load_state_dict(groups["weights"])
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name].to(value.device))
            self.optimizers.restore(groups.get("optimizer", {}))
            for index, segment in enumerate(self.segments):
                segment.restore(groups[f"segment{index}"])
            self.generator.set_state(groups["generator"]["position"])
            self.window.restore(groups.get("window", {}), self.team, self.generator.device)
            self.done, self.samples = values["done"], values["samples"]
            self.seconds, self.best = values["seconds"], values["best"]
        except (KeyError, RuntimeError) as error:
            raise RecipeError(f"{self.folder}: incomplete training state: {error}") from None
        return True

    def run(self, minutes: float | None = None) -> float:
        """Train until the recipe's steps are done, `minutes` have passed, or SIGINT or SIGTERM.

        Returns the best validation accuracy, −1 before the first; `interrupted` says whether a
        signal ended it. The state is saved every minute and at the end. TrainingError leaves
        the last saved state as it is.
        """
        leads = self.team.rank == 0
        if leads:
            self.folder.mkdir(parents=True, exist_ok=True)
            for one in self.sets:
                one.validation.save(self.folder / f"held-out-{one.mix.size}.npz")
        clock = Clock(self.seconds, float("inf") if minutes is None else minutes * 60)
        exact = None
        with (
            Journal(
                self.folder, self.recipe, self.done, shown=leads, watcher=self.watcher
            ) as journal,
            self._signals(),
        ):
            while self.progress < 1 and not self.interrupted:
                self._train_once()
                # Summing up waits for the device, so the clock is read after it.
                row = self._sum_up() if self.done % CURVE_EVERY == 0 else None
                save, stop = self._agree(clock)
                if row is not None:
                    speed = self.samples / max(self.seconds, 1e-9)
                    journal.trained(
                        self.done, self.progress, self.samples, self.seconds, row, speed
                    )
                exact = None
                if self.progress >= 1 or self.done % self.recipe.validate_every == 0:
                    exact = self._validate(journal)
                if stop:
                    break
                if (save or (exact is not None and self.after_save)) and self.progress < 1:
                    self._keep(journal, exact, last=False)
                    clock.saved()
            self._keep(journal, exact, last=True)
        return self.best

    def interrupt(self) -> None:
        """Have `run` end after the step it is at, from any thread and any worker of the team."""
        self._asked_to_stop = True

    def save(self) -> None:
        """Write the run's whole state. TrainingError where a gradient since was not finite."""
        self.window.check(self.done)
        window = self.window.tensors(self.team)
        carries = self._carries()
        if self.team.rank:
            return
        groups = {
            "weights": self.operator.state_dict(),
            "average": self.average.shadow,
            "optimizer": self.optimizers.tensors(),
            "generator": generator_tensor(self.generator),
            "window": window,
        }
        moments = groups["optimizer"]
        if sum(byte_count(group) for group in groups.values()) > LARGE_BYTES:
            groups["optimizer"] = {
                name: value.bfloat16() if value.ndim else value for name, value in moments.items()
            }
        groups |= {f"segment{index}": carry for index, carry in enumerate(carries)}
        values = {
            **self._identity(),
            "done": self.done,
            "samples": self.samples,
            "seconds": self.seconds,
            "best": self.best,
        }
        save_state(self.folder, groups, values)

    def _keep(self, journal: Journal, exact: float | None, *, last: bool) -> None:
        self.save()
        journal.flush()
        if self.after_save is not None:
            self.after_save(Saved(self.done, exact, last))

    def _carries(self) -> list[dict[str, Tensor]]:
        """What the segments carry, of the whole team; without the states where those are large."""
        carries = [segment.tensors() for segment in self.segments]
        keep_states = self.team.size * sum(map(byte_count, carries)) <= CARRY_BYTES
        return [
            {
                name: self.team.gather(value)
                for name, value in carry.items()
                if keep_states or not name.startswith("state")
            }
            for carry in carries
        ]

    def _agree(self, clock: Clock) -> tuple[bool, bool]:
        """Whether to save now, and to stop for now: the first worker's clock decides for all.

        An interruption of any worker interrupts all.
        """
        times = clock.read() if self.team.rank == 0 else (0.0, False, False)
        self.seconds, save, stop, asked = self.team.sums([*times, self._asked_to_stop])
        self.interrupted = asked > 0
        return save > 0, stop > 0

    def _begin_with(self, start: Path) -> str:
        weights, card = load_checkpoint(start)
        if card.operator != self.recipe.operator:
            raise RecipeError(f"{start}: its operator is not the recipe's; they must be the same")
        self.operator.load_state_dict(weights)
        return card.digest

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after its step, where this thread may take signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {s: signal.signal(s, self._interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupt()

    def _train_once(self) -> None:
        recipe, progress = self.recipe, self.progress
        segment = self._choose()
        span = recipe.reveal_until
        reveal = recipe.reveal * max(0.0, 1 - progress / span) if span else 0.0
        outcome = segment.step(reveal)
        self.team.average_gradients(self.optimizers.parameters)
        norm = self.optimizers.step(schedule(recipe, self.done, progress))
        self.average.update(self.done)
        self.done += 1
        self.samples += segment.batch
        self.window.outcomes.append(outcome)
        self.window.norms.append(norm)

    def _choose(self) -> Segment:
        if len(self.segments) == 1:
            return self.segments[0]
        # A function of the step, so that neither resuming nor a device changes it.
        place = np.random.default_rng([self.recipe.seed, self.done]).random()
        edges = np.cumsum([one.mix.share for one in self.sets])
        return self.segments[int(np.searchsorted(edges / edges[-1], place, side="right"))]

    def _sum_up(self) -> dict[str, float]:
        self.window.check(self.done)
        row = self.window.row(self.team)
        self.window = Window()
        return row

    def _validate(self, journal: Journal) -> float:
        results = [validator.measure(self.average.shadow) for validator in self.validators]
        for index, result in enumerate(results):
            best = index == 0 and result.exact >= self.best
            journal.validated(self.done, self.seconds, result, best)
            if best:
                self.best = result.exact
                if self.team.rank == 0:
                    self._export()
        return results[0].exact

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
                "device": _device_name(self.generator.device),
                "threads": torch.get_num_threads(),
                "workers": self.team.size,
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
            "within_minutes": None if self.limit is None else self.limit / 60,
        }
        return dict(json.loads(json.dumps(values)))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

"""The training loop: segments of each size, one optimiser, checkpoints, and going on later."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from eqr_core.errors import RecipeError
from eqr_core.model.checkpoint import load_checkpoint
from eqr_core.model.config import SCHEDULE
from eqr_core.model.operator import Operator
from eqr_core.training.clock import Clock
from eqr_core.training.compiling import can_compile
from eqr_core.training.curve import Window
from eqr_core.training.journal import Journal, Watcher
from eqr_core.training.optimizer import Average, Optimizers, schedule
from eqr_core.training.puzzles import held_out_puzzles, open_puzzles
from eqr_core.training.recipe import Recipe
from eqr_core.training.revision import code_revision
from eqr_core.training.run_folder import RunFolder
from eqr_core.training.segment import Segment
from eqr_core.training.state import Groups, byte_count, generator_tensor
from eqr_core.training.team import Team
from eqr_core.training.validate import Validator

CURVE_EVERY = 50
"""Optimiser steps that one line of the curve sums up."""
CARRY_BYTES = 12 * 2**20
"""Most that the samples' states may take to be kept in the run's state."""
SAMPLING = 2**32
"""Added to the seed of the weights for that of the samples: the two share no stream."""


@dataclass(frozen=True)
class Saved:
    """The run's folder has just been written, everything in it of one step."""

    step: int
    exact: float | None
    """The accuracy that decides which checkpoint is best, where it was validated at this step."""
    last: bool
    """No step follows in this call of `Trainer.run`."""


class Trainer:
    """One run of a recipe in one folder.

    The folder holds `state.json` and its files (everything needed to go on), `curve.csv`,
    `validation.csv`, `held-out-SIZE.npz` (the validation puzzles), and `best/`, the checkpoint
    with the best validation accuracy, of the recipe's first size or of what it holds out. On a
    CPU a run is a function of its recipe, data, number of threads and `arithmetic`: a resumed one
    gives the same parameters, bit for bit. Not so a large one: states above `CARRY_BYTES` are not
    kept, so that its samples start again, and moments above `LARGE_BYTES` are kept in bfloat16.
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

        `start` is a checkpoint of the same operator, but for its `SCHEDULE`, whose weights a new
        run begins with.
        `within` minutes of training in all the run ends, its learning rate decayed; the recipe's
        steps then do not count.
        `report` is called with a line now and then before the run shows its own progress, which
        goes to `watcher`, or to this process's terminal.
        `after_save` is called by every worker of the team at the same steps: after every save,
        and the run then saves after every validation too.
        """
        if within is not None and not recipe.decay:
            raise RecipeError(
                f"decay is 0 in the recipe {recipe.name}, so its learning rate would not fall "
                "within any time; give the recipe a decay above 0"
            )
        # torch compiles for a GPU with a C compiler too.
        if compiled and not can_compile():
            report("no C++ compiler found: training runs uncompiled, a few times slower")
            compiled = False
        self.recipe = recipe
        self.limit = within * 60 if within is not None else None
        self.team = team
        self.watcher = watcher
        self.after_save = after_save
        torch.manual_seed(recipe.seed)
        self.sets = [one.to(device) for one in open_puzzles(recipe, files, report)]
        self.held_out = held_out_puzzles(recipe, report)
        self.generator = Generator(device).manual_seed((recipe.seed + SAMPLING) % 2**63)
        self.operator = Operator(recipe.operator, self.sets[0].task)
        digest = self._begin_with(start) if start else None
        self.operator.to(device)
        self.folder = RunFolder(folder, self._identity(digest))
        self.segments = [
            Segment(self.operator, one, recipe, self.generator, compiled=compiled, team=team)
            for one in self.sets
        ]
        self.validators = [
            Validator(self.operator, puzzles, depth, recipe, compiled, team)
            for puzzles, depth in (
                *((one.validation, recipe.depth) for one in self.sets),
                *zip(self.held_out, (one.depth for one in recipe.held_out), strict=True),
            )
        ]
        self.optimizers = Optimizers(self.operator, recipe)
        self.average = Average(self.operator, recipe.ema)
        self.window = Window()
        native = any(segment.native for segment in self.segments)
        self.arithmetic = "native" if native else "compiled" if compiled else "eager"
        self.report = report
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
        found = self.folder.load()
        if found is None:
            return False
        groups, values = found
        try:
            self.operator.load_state_dict(groups["weights"])
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name].to(value.device))
            self.optimizers.restore(groups.get("optimizer", {}))
            self.generator.set_state(groups["generator"]["position"])
            for index, segment in enumerate(self.segments):
                segment.restore(groups[f"segment{index}"])
            self.window.restore(groups.get("window", {}), self.team, self.generator.device)
            self.done, self.samples = values["done"], values["samples"]
            self.seconds = values["seconds"]
            # Without its best checkpoint, moved without it perhaps, the run exports the next one.
            self.best = values["best"] if self.folder.has_best else -1.0
        except (KeyError, RuntimeError) as error:
            path = self.folder.path
            raise RecipeError(f"{path}: incomplete training state: {error}") from None
        if values["arithmetic"] != self.arithmetic:
            self.report(
                f"the run was {values['arithmetic']} and goes on {self.arithmetic}: "
                "its rounding is another from here on"
            )
        return True

    def run(self, minutes: float | None = None) -> float:
        """Train until the recipe's steps are done, `minutes` have passed, or SIGINT or SIGTERM.

        Returns the best validation accuracy, −1 before the first; `interrupted` says whether a
        signal ended it. The state is saved every minute and at the end. TrainingError leaves
        the last saved state as it is.
        """
        leads, folder = self.team.rank == 0, self.folder.path
        self.interrupted = self._asked_to_stop = False
        if leads:
            folder.mkdir(parents=True, exist_ok=True)
            for one in self.sets:
                one.validation.save(folder / f"held-out-{one.mix.size}.npz")
        # Whether there is anything to do is agreed too: who went in alone would wait for ever.
        (self.seconds,) = self.team.sums([self.seconds if leads else 0.0])
        clock = Clock(self.seconds, float("inf") if minutes is None else minutes * 60)
        exact = None
        with (
            Journal(
                folder,
                self.recipe,
                self.done,
                self.samples,
                self.seconds,
                shown=leads,
                watcher=self.watcher,
            ) as journal,
            self._signals(),
        ):
            while self.progress < 1 and not self.interrupted:
                self._train_once()
                # Summing up waits for the device, so the clock is read after it.
                row = self._sum_up() if self.done % CURVE_EVERY == 0 else None
                save, stop = self._agree(clock)
                if row is not None:
                    journal.trained(self.done, self.progress, self.samples, self.seconds, row)
                exact = None
                if stop and self.progress < 1:
                    break
                if self.progress >= 1 or self.done % self.recipe.validate_every == 0:
                    exact = self._validate(journal)
                if (save or (exact is not None and self.after_save)) and self.progress < 1:
                    self._keep(journal, exact, last=False)
                    clock.saved()
            self._keep(journal, exact, last=True)
        return self.best

    @property
    def state_bytes(self) -> int:
        """Bytes of the state that `save` writes."""
        return sum(map(byte_count, self._groups().values()))

    def interrupt(self) -> None:
        """Have `run` end after the step it is at, from any thread and any worker of the team."""
        self._asked_to_stop = True

    def save(self) -> None:
        """Write the run's whole state. TrainingError where a gradient since was not finite."""
        self.window.check(self.done)
        groups = self._groups()
        if self.team.rank == 0:
            self.folder.save(groups, self._counts())

    def _groups(self) -> Groups:
        """Every tensor of the run, of the whole team."""
        return {
            "weights": self.operator.state_dict(),
            "average": self.average.shadow,
            "optimizer": self.optimizers.tensors(),
            "generator": generator_tensor(self.generator),
            "window": self.window.tensors(self.team),
            **{f"segment{index}": carry for index, carry in enumerate(self._carries())},
        }

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
        ours, theirs = asdict(self.recipe.operator), asdict(card.operator)
        for name in ours:
            if name not in SCHEDULE and ours[name] != theirs[name]:
                raise RecipeError(
                    f"{start}: its operator is not the recipe's: {name} is {theirs[name]!r} there "
                    f"and {ours[name]!r} in the recipe"
                )
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
        self.samples += segment.batch * segment.outer_steps
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
        # Of the puzzles that only validate, else of the first size.
        deciding = results[len(self.sets) :] or results[:1]
        exact = sum(result.exact for result in deciding) / len(deciding)
        best = exact >= self.best
        for result in results:
            journal.validated(self.done, self.seconds, result, best and result in deciding)
        if best:
            self.best = exact
            if self.team.rank == 0:
                self._export()
        return exact

    def _export(self) -> None:
        weights = {**self.operator.state_dict(), **self.average.shadow}
        facts = {
            "device": _device_name(self.generator.device),
            "threads": torch.get_num_threads(),
            "workers": self.team.size,
            "torch": torch.__version__,
            "code": code_revision(),
            "validation_rows": sum(map(len, self.held_out)) or len(self.sets[0].validation),
            "validation_exact": self.best,
        }
        self.folder.export(self.recipe, weights, {**self._counts(), **facts})

    def _counts(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "samples": self.samples,
            "seconds": self.seconds,
            "best": self.best,
            "arithmetic": self.arithmetic,
        }

    def _identity(self, start: str | None) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from."""
        values = {
            "recipe": self.recipe.to_dict(),
            "data": {one.mix.size: one.digest for one in self.sets},
            "start": start,
            "within_minutes": None if self.limit is None else self.limit / 60,
            "device_type": self.generator.device.type,
        }
        return dict(json.loads(json.dumps(values)))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

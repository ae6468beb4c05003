"""Training samples of one size, carried from outer step to outer step, and what a step saw."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor

from eqr_core.model.layers import truncated_normal
from eqr_core.model.native import native_step
from eqr_core.model.operator import Operator, State, residual
from eqr_core.training.compiling import maybe_compiled
from eqr_core.training.loss import act_loss
from eqr_core.training.puzzles import TrainingSet
from eqr_core.training.recipe import Recipe
from eqr_core.training.team import Team

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Outcome:
    """What one training step saw: sums over this worker's rows, float32 scalars.

    They stay on the device: reading one waits for it, so only a line of the curve does.
    """

    rows: Tensor
    loss: Tensor
    halted: Tensor
    exact: Tensor
    """Halted samples whose every token was right."""
    halted_steps: Tensor
    residual: Tensor


class Segment:
    """A batch of one size. Every call of `step` is the forward and backward part of one
    optimiser step.

    Segmented training (SOT, paper section 4) runs one outer step of every sample from its
    carried, detached state; a sample that halts is replaced by a fresh puzzle in a fresh state
    (ACT with exploration). Under `trajectory` supervision every sample runs all of its outer
    steps, each with a loss, and all are replaced.
    """

    def __init__(
        self,
        operator: Operator,
        puzzles: TrainingSet,
        recipe: Recipe,
        generator: Generator,
        *,
        compiled: bool,
        team: Team = Team(),  # noqa: B008 - frozen
    ) -> None:
        self.operator = operator.for_task(puzzles.task)
        self.puzzles = puzzles
        self.recipe = recipe
        self.generator = generator
        self.batch = puzzles.mix.batch
        self.mine = team.rows(self.batch)
        self.device = generator.device
        self.dtype = DTYPES[recipe.precision]
        self.native = native_step(self.operator, self.dtype) if compiled else None
        self.forward = maybe_compiled(self._forward, compiled)
        self.question, self.answer = self._puzzles(recipe.reveal)
        self.state = self._starts(generator)
        self.steps = torch.zeros(len(self.question), dtype=torch.long, device=self.device)
        self.least = self._least()

    @property
    def outer_steps(self) -> int:
        """Outer steps of each sample in one optimiser step."""
        return 1 if self.recipe.supervision == "segmented" else self.recipe.depth

    def step(self, reveal: float) -> Outcome:
        """Add this batch's gradients, its mean loss's; return what was seen.

        `reveal` goes to the puzzles that replace halted samples.
        """
        count = self.outer_steps
        outcomes = []
        for _ in range(count):
            outcome, halted = self._outer_step(1 / count)
            outcomes.append(outcome)
        self._replace(halted, reveal)
        return Outcome(
            *(
                torch.stack([getattr(outcome, item.name) for outcome in outcomes]).sum(0)
                for item in fields(Outcome)
            )
        )

    def tensors(self) -> dict[str, Tensor]:
        """The carry, by name, for the training state."""
        named = {f"state{i}": part for i, part in enumerate(self.state)}
        for name in ("question", "answer", "steps", "least"):
            named[name] = getattr(self, name)
        return named

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back this worker's rows of what `tensors` gave for the whole batch.

        Without the states, which a state file may leave out, the samples start again.
        """
        for name in ("question", "answer", "steps", "least"):
            setattr(self, name, tensors[name][self.mine].to(self.device))
        if "state0" in tensors:
            parts = (tensors[f"state{i}"] for i in range(len(self.state)))
            self.state = tuple(part[self.mine].to(self.device) for part in parts)
        else:
            # Not from the run's own generator: it stays where it is, and with it the data's order.
            fresh = Generator(self.device).manual_seed(int(tensors["question"].long().sum()))
            self.state = self._starts(fresh)
            self.steps = torch.zeros_like(self.steps)

    def _outer_step(self, weight: float) -> tuple[Outcome, Tensor]:
        beta = self.operator.config.noise
        draw = self._noise() * beta if beta else None
        loss, state, exact, q, moved = self.forward(self.state, self.question, self.answer, draw)
        (loss * weight).backward()
        self.state = tuple(part.detach() for part in state)
        self.steps = self.steps + 1
        halted = self.steps >= self.recipe.depth
        if self.recipe.act:
            halted = halted | ((q.detach() > 0) & (self.steps >= self.least))
        outcome = Outcome(
            rows=torch.full((), float(len(q)), device=self.device),
            loss=loss.detach() * len(q),
            halted=halted.sum().float(),
            exact=(exact & halted).sum().float(),
            halted_steps=(self.steps * halted).sum().float(),
            residual=moved.sum(),
        )
        return outcome, halted

    def _forward(
        self, state: State, question: Tensor, answer: Tensor, draw: Tensor | None
    ) -> tuple[Tensor, State, Tensor, Tensor, Tensor]:
        operator = self.operator
        # Rows exchange one draw among the updates: each update of a row gets its own noise at
        # a fraction of the cost of drawing for every update.
        if self.native:
            new = self.native.train(state, question, draw, self.mine.start)
        else:
            e = operator.embed(question).to(self.dtype)
            noise = None if draw is None else lambda i: draw.roll(i, 0)[self.mine]
            new = operator.outer_step(state, e, noise)
        logits, q = operator.read(new)
        label = answer.long() - operator.answer_offset
        exact = (logits.argmax(-1) == label).all(-1)
        answer_loss, halting_loss = act_loss(logits, q[:, 0], label)
        loss = (answer_loss + self.recipe.q_weight * halting_loss).mean()
        return loss, new, exact, q[:, 0], residual(new, state).detach()

    def _replace(self, halted: Tensor, reveal: float) -> None:
        """Fresh samples for the halted ones, of static shapes so that nothing waits for a count."""
        question, answer = self._puzzles(reveal)
        self.question = torch.where(halted[:, None], question, self.question)
        self.answer = torch.where(halted[:, None], answer, self.answer)
        starts = self._starts(self.generator)
        chooser = halted.view(-1, *(1,) * (self.state[0].ndim - 1))
        self.state = tuple(
            torch.where(chooser, fresh, part)
            for fresh, part in zip(starts, self.state, strict=True)
        )
        self.steps = torch.where(halted, 0, self.steps)
        self.least = torch.where(halted, self._least(), self.least)

    def _puzzles(self, reveal: float) -> tuple[Tensor, Tensor]:
        question, answer = self.puzzles.draw(self.batch, reveal, self.generator)
        return question[self.mine], answer[self.mine]

    def _starts(self, generator: Generator) -> State:
        drawn = initial_state(self.operator, self.batch, self.dtype, generator)
        return tuple(part[self.mine] for part in drawn)

    def _least(self) -> Tensor:
        draws = torch.rand(2, self.batch, generator=self.generator, device=self.device)
        top = max(2, self.recipe.depth)
        least = 2 + (draws[1] * (top - 1)).long()
        return torch.where(draws[0] < self.recipe.exploration, least, 1)[self.mine]

    def _noise(self) -> Tensor:
        shape = (self.batch, *self.operator.state_shape)
        return torch.randn(shape, dtype=self.dtype, generator=self.generator, device=self.device)


def initial_state(
    operator: Operator, count: int, dtype: torch.dtype, generator: Generator
) -> State:
    """Fresh states of `count` samples: random (RI), or the operator's fixed vectors."""
    if operator.config.initial == "fixed":
        return tuple(part.to(dtype).clone() for part in operator.fixed_state(count))
    shape = (count, *operator.state_shape)
    return tuple(
        truncated_normal(torch.rand(shape, generator=generator, device=generator.device)).to(dtype)
        for _ in range(operator.state_count)
    )

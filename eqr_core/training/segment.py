"""Segmented online training: the samples of one size, carried from outer step to outer step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from eqr_core.model.layers import truncated_normal
from eqr_core.model.operator import Operator, State, residual
from eqr_core.training.compiling import maybe_compiled
from eqr_core.training.loss import act_loss
from eqr_core.training.puzzles import TrainingSet
from eqr_core.training.recipe import Recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Outcome:
    """What one training step saw, over the batch."""

    loss: float
    halted: int
    exact: int
    """Halted samples whose every token was right."""
    halted_steps: int
    residual: float
    """Mean relative residual."""


class Segment:
    """A batch of one size. Every call of `step` runs one outer step of every sample.

    A sample that halts is replaced by a fresh puzzle in a fresh state (paper section 4; ACT
    with exploration). States are carried detached.
    """

    def __init__(
        self,
        operator: Operator,
        puzzles: TrainingSet,
        recipe: Recipe,
        generator: Generator,
        compiled: bool,
    ) -> None:
        self.operator = operator.for_task(puzzles.task)
        self.puzzles = puzzles
        self.recipe = recipe
        self.generator = generator
        self.dtype = DTYPES[recipe.precision]
        self.forward = maybe_compiled(self._forward, compiled)
        batch = puzzles.mix.batch
        self.question, self.answer = puzzles.draw(batch, recipe.reveal, generator)
        self.state = self._initial(batch)
        self.steps = torch.zeros(batch, dtype=torch.long)
        self.least = self._least(batch)

    def step(self, reveal: float) -> Outcome:
        """One outer step forward and backward: adds to the gradients, returns what was seen.

        `reveal` goes to the puzzles that replace halted samples.
        """
        beta = self.operator.config.noise
        draw = self._normal() * beta if beta else None
        loss, state, exact, q, moved = self.forward(self.state, self.question, self.answer, draw)
        loss.backward()
        self.state = tuple(part.detach() for part in state)
        self.steps += 1
        halted = ((q.detach() > 0) & (self.steps >= self.least)) | (self.steps >= self.recipe.depth)
        outcome = Outcome(
            loss=float(loss.detach()),
            halted=int(halted.sum()),
            exact=int((exact & halted).sum()),
            halted_steps=int(self.steps[halted].sum()),
            residual=float(moved.mean()),
        )
        self._replace(halted.nonzero().squeeze(1), reveal)
        return outcome

    def tensors(self) -> dict[str, Tensor]:
        """The carry, by name, for the training state."""
        named = {f"state{i}": part for i, part in enumerate(self.state)}
        for name in ("question", "answer", "steps", "least"):
            named[name] = getattr(self, name)
        return named

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        self.state = tuple(tensors[f"state{i}"] for i in range(len(self.state)))
        for name in ("question", "answer", "steps", "least"):
            setattr(self, name, tensors[name])

    def _forward(
        self, state: State, question: Tensor, answer: Tensor, draw: Tensor | None
    ) -> tuple[Tensor, State, Tensor, Tensor, Tensor]:
        operator = self.operator
        e = operator.embed(question).to(self.dtype)
        # Rows exchange one draw among the updates: each update of a row gets its own noise at
        # a fraction of the cost of drawing for every update.
        noise = None if draw is None else lambda i: draw.roll(i, 0)
        new = operator.outer_step(state, e, noise)
        logits, q = operator.read(new)
        label = answer.long() - operator.answer_offset
        exact = (logits.argmax(-1) == label).all(-1)
        answer_loss, halting_loss = act_loss(logits, q[:, 0], label)
        loss = (answer_loss + self.recipe.q_weight * halting_loss).mean()
        return loss, new, exact, q[:, 0], residual(new, state).detach()

    def _replace(self, rows: Tensor, reveal: float) -> None:
        count = len(rows)
        if not count:
            return
        self.question[rows], self.answer[rows] = self.puzzles.draw(count, reveal, self.generator)
        for part, fresh in zip(self.state, self._initial(count), strict=True):
            part[rows] = fresh
        self.steps[rows] = 0
        self.least[rows] = self._least(count)

    def _initial(self, count: int) -> State:
        return initial_state(self.operator, count, self.dtype, self.generator)

    def _least(self, count: int) -> Tensor:
        explore = torch.rand(count, generator=self.generator) < self.recipe.exploration
        top = max(2, self.recipe.depth)
        least = torch.randint(2, top + 1, (count,), generator=self.generator)
        return torch.where(explore, least, 1)

    def _normal(self) -> Tensor:
        shape = (len(self.steps), *self.operator.state_shape)
        return torch.randn(shape, dtype=self.dtype, generator=self.generator)


def initial_state(
    operator: Operator, count: int, dtype: torch.dtype, generator: Generator
) -> State:
    """Fresh states of `count` samples: random (RI), or the operator's fixed vectors."""
    if operator.config.initial == "fixed":
        return tuple(part.to(dtype).clone() for part in operator.fixed_state(count))
    shape = (count, *operator.state_shape)
    return tuple(
        truncated_normal(torch.rand(shape, generator=generator)).to(dtype)
        for _ in range(operator.state_count)
    )

"""The learned operator f_θ: one outer step of the state, and the read-out of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqr_core.errors import ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import Linear, truncated_normal
from eqr_core.model.mixers import AttentionBlock, GridBlock, TokenBlock, UnitsBlock
from eqr_core.tasks.base import ConstraintLayout, Task

State = tuple[Tensor, ...]
"""(z_H, z_L), or (z,) with a single state or none; each [batch, *state_shape]."""

Noise = Callable[[int], Tensor]
"""Draw for update number i of an outer step, already scaled by β, shaped like one state."""

Q_BIAS = -5.0
CANDIDATE_KINDS = 3
POOLED = ("units", "grid")
"""Mixers whose halting head reads mean and maximum over the whole state, for it has no first
token that stands apart."""


class Operator(nn.Module):
    """f_θ for one task size. It computes in the dtype of the state it is given.

    The weights of `units`, `grid` and `attention` fit every size of the task (up to the `frame`,
    where there is one); build one operator a size with `for_task` and they share their parameters.
    """

    start: Tensor
    """Initial state [states, hidden] of a `fixed` operator."""

    def __init__(self, config: OperatorConfig, task: Task) -> None:
        super().__init__()
        self._make_weights(config)
        self.task = task
        self._check(task)

    @classmethod
    def fresh(cls, config: OperatorConfig) -> Operator:
        """An operator with its start values, for no task yet; `for_task` makes it one."""
        bare = object.__new__(cls)
        nn.Module.__init__(bare)
        bare._make_weights(config)
        return bare

    @classmethod
    def blueprint(cls, config: OperatorConfig) -> Operator:
        """`fresh` on the meta device: names and shapes of the weights, no values."""
        with torch.device("meta"):
            return cls.fresh(config)

    def _make_weights(self, config: OperatorConfig) -> None:
        self.config = config
        block = {
            "token": TokenBlock,
            "attention": AttentionBlock,
            "units": UnitsBlock,
            "grid": GridBlock,
        }
        stacks = 2 if config.stacks == "separate" else 1
        # Those of the lower state first.
        self.blocks = nn.ModuleList(
            block[config.mixer](config) for _ in range(stacks * config.blocks)
        )
        if config.mixer == "units":
            self.embedding = nn.Parameter(
                truncated_normal(torch.rand(CANDIDATE_KINDS, config.hidden))
            )
            self.head = Linear(config.hidden, 1)
        else:
            scale = config.hidden**-0.5
            self.embedding = nn.Parameter(
                truncated_normal(torch.rand(config.vocabulary, config.hidden), scale)
            )
            self.head = Linear(config.hidden, config.vocabulary)
        width = (2 if self.config.mixer in POOLED else 1) * config.hidden
        self.q_head = nn.Linear(width, config.q_outputs)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, Q_BIAS)
        if config.initial == "fixed" and config.states != "none":
            start = truncated_normal(torch.rand(self.state_count, config.hidden))
            self.register_buffer("start", start)

    def _check(self, task: Task) -> None:
        config = self.config
        if task.name != config.task:
            raise ModelError(f"the model solves {config.task}, not {task.name}")
        if config.mixer == "token" and task.tokens != config.tokens:
            raise ModelError(
                f"the model takes grids of {config.tokens} cells, not {task.tokens} ({task.size})"
            )
        if not config.takes(task.size):
            raise ModelError(f"the model takes grids up to {config.frame}, not {task.size}")
        if config.mixer == "units" and task.layout is None:
            raise ModelError(f"the task {task.name} states no constraints for the units mixer")
        if config.mixer == "units" and task.layout is not None:
            kinds = max(task.layout.weights) + 1
            if config.constraint_kinds < kinds:
                raise ModelError(
                    f"the model has constraint_kinds {config.constraint_kinds}; "
                    f"{task.name} {task.size} needs {kinds}"
                )
        if config.mixer != "units" and config.vocabulary < task.vocabulary:
            raise ModelError(
                f"the model has a vocabulary of {config.vocabulary}; "
                f"{task.name} {task.size} needs {task.vocabulary}"
            )

    def for_task(self, task: Task) -> Operator:
        """The same weights (shared, not copied) for another size of the task."""
        self._check(task)
        other = object.__new__(Operator)
        other.__dict__ = {**self.__dict__, "task": task}
        return other

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding.device

    @property
    def state_count(self) -> int:
        """Tensors of a state: 2 hierarchical, else 1."""
        return 2 if self.config.states == "hierarchical" else 1

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of one state tensor without the batch axis."""
        if self.config.mixer == "units":
            assert self.task.layout is not None  # narrows the type; _check refused it
            return (*self.task.layout.axes, self.config.hidden)
        if self.config.mixer == "grid":
            return (self.task.rows, self.task.columns, self.config.hidden)
        return (self.task.tokens, self.config.hidden)

    @property
    def draws_per_cycle(self) -> int:
        """Noise draws of one cycle: one for each update of a state."""
        return self.config.updates + self.state_count - 1

    @property
    def answer_offset(self) -> int:
        """Token that logit 0 stands for: `units` scores a cell's values only."""
        return self.task.first_value_token if self.config.mixer == "units" else 0

    @property
    def logit_count(self) -> int:
        """Logits of a cell."""
        layout = self.task.layout
        if self.config.mixer == "units" and layout is not None:
            return layout.values
        return self.config.vocabulary

    def embed(self, tokens: Tensor) -> Tensor:
        """Input embedding of tokens [batch, tokens] (any integer dtype): [batch, *state_shape].

        Paper: √hidden · Embed(token). `units` embeds each candidate's kind.
        """
        if self.config.mixer != "units":
            e = self.table[tokens.long()]
            return e.view(len(tokens), *self.state_shape) if self.config.mixer == "grid" else e
        # A product, not a lookup: its gradient on a GPU is one too, not a queue for three rows.
        kinds = F.one_hot(self.candidate_kinds(tokens), CANDIDATE_KINDS).to(self.embedding.dtype)
        return (kinds @ self.embedding).view(len(tokens), *self.state_shape)

    @property
    def table(self) -> Tensor:
        """What `embed` looks up: a row for each token, or for each candidate kind of `units`."""
        if self.config.mixer == "units":
            return self.embedding
        return math.sqrt(self.config.hidden) * self.embedding

    def candidate_kinds(self, tokens: Tensor) -> Tensor:
        """Kind of each candidate of tokens [batch, tokens]: int64 [batch, tokens, values].

        0 is a clue, 1 another value in a clue's cell, 2 any value in a blank. `units` only.
        """
        layout = self.task.layout
        assert layout is not None  # narrows the type; _check refused it
        tokens = tokens.long()[..., None]
        own = torch.arange(layout.values, device=tokens.device) + self.task.first_value_token
        return torch.where(tokens == self.task.blank_token, 2, torch.where(tokens == own, 0, 1))

    def fixed_state(self, batch: int) -> State:
        """The stored initial state of a `fixed` operator, broadcast to `batch` rows.

        Zeros where the operator has no states.
        """
        shape = (batch, *self.state_shape)
        if self.config.states == "none":
            return (torch.zeros(shape, device=self.embedding.device),)
        return tuple(vector.expand(shape) for vector in self.start)

    def level(
        self, z: Tensor, injection: Tensor, noise: Tensor | None = None, upper: bool = False
    ) -> Tensor:
        """One update: (1 − λ')·z + λ'·Block(z + injection) + β·noise, λ' = 1 − damping.

        `noise` is already scaled. All tensors [batch, *state_shape]. `upper` says which state is
        updated, for operators whose stacks are separate.
        """
        u = self._pass(z + injection, upper)
        keep = self.config.damping
        z = keep * z + (1 - keep) * u if keep else u
        return z if noise is None else z + noise

    def cycle(self, state: State, e: Tensor, noise: Noise | None, first_draw: int) -> State:
        """`updates` updates of the lower state, then one of the upper (paper's recursion)."""
        *uppers, lower = state
        injection = uppers[0] + e if uppers else e
        last = first_draw + self.config.updates - 1
        free = range(first_draw, last) if self.config.gradient == "update" else range(0)
        with torch.no_grad():
            for i in free:
                lower = self.level(lower, injection, noise and noise(i))
        for i in range(first_draw + len(free), last + 1):
            lower = self.level(lower, injection, noise and noise(i))
        if not uppers:
            return (lower,)
        return self.level(uppers[0], lower, noise and noise(last + 1), upper=True), lower

    def outer_step(self, state: State, e: Tensor, noise: Noise | None = None) -> State:
        """One outer step (depth 1). Gradients flow through the last cycle at most.

        `state` tensors and `e` are [batch, *state_shape] of one floating dtype.
        """
        if self.config.states == "none":
            return (self._pass(e),)
        per_cycle = self.draws_per_cycle
        with torch.no_grad():
            for index in range(self.config.cycles - 1):
                state = self.cycle(state, e, noise, index * per_cycle)
        return self.cycle(state, e, noise, (self.config.cycles - 1) * per_cycle)

    def read(self, state: State) -> tuple[Tensor, Tensor]:
        """Logits [batch, tokens, values] and halting outputs [batch, q_outputs], float32."""
        z = state[0]
        logits = self.head(z).float()
        if self.config.mixer not in POOLED:
            return logits, self.q_head(z[:, 0].float())
        logits = logits.view(len(z), self.task.tokens, -1)
        axes = tuple(range(1, z.ndim - 1))
        pooled = torch.cat([z.mean(axes), z.amax(axes)], dim=-1).float()
        return logits, self.q_head(pooled)

    def predict(self, logits: Tensor) -> Tensor:
        """Answer tokens [batch, tokens], uint8, of logits [batch, tokens, values]."""
        return (logits.argmax(-1) + self.answer_offset).to(torch.uint8)

    def _pass(self, u: Tensor, upper: bool = False) -> Tensor:
        count = self.config.blocks
        first = count if upper and self.config.stacks == "separate" else 0
        for index in range(first, first + count):
            u = self.blocks[index](u, *self._known)
        return u

    @property
    def _known(self) -> tuple[ConstraintLayout | int | None, ...]:
        """What a block must be told of the task."""
        match self.config.mixer:
            case "units":
                return (self.task.layout,)
            case "attention":
                return (self.task.columns,)
        return ()


def residual(new: State, old: State) -> Tensor:
    """Relative residual ‖z_t − z_{t−1}‖₂ / (‖z_t‖₂ + 1e-8) per row, float32 [batch].

    Both norms run over the whole state (DESIGN section 2).
    """
    change = torch.zeros(len(new[0]), device=new[0].device)
    size = torch.zeros_like(change)
    for now, before in zip(new, old, strict=True):
        wide = now.float().flatten(1)
        change += (wide - before.float().flatten(1)).square().sum(1)
        size += wide.square().sum(1)
    return change.sqrt() / (size.sqrt() + 1e-8)

"""Exact accuracy of weights on held-out puzzles at one depth, a single trajectory each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eqr_core.data.packed import PackedPuzzles
from eqr_core.model.native import native_step
from eqr_core.model.operator import Operator, State, residual
from eqr_core.training.compiling import maybe_compiled
from eqr_core.training.recipe import Recipe
from eqr_core.training.segment import DTYPES, initial_state
from eqr_core.training.team import Team

ROWS_AT_ONCE = 50
VALIDATION_SEED = 2


@dataclass(frozen=True)
class Validation:
    """Result on one size."""

    size: str
    """With the depth after ``@`` where it is not the recipe's."""
    rows: int
    exact: float
    residual_right: float
    """Median relative residual of the last step over the puzzles solved; NaN if there is none."""
    residual_wrong: float
    """The same over the puzzles not solved."""


class Validator:
    """Measures one size with the weights it is given; the training run's draws are untouched.

    A team shares the puzzles; each of its workers has the whole result.
    """

    def __init__(
        self,
        operator: Operator,
        puzzles: PackedPuzzles,
        depth: int,
        recipe: Recipe,
        compiled: bool,
        team: Team = Team(),  # noqa: B008 - frozen
    ) -> None:
        self.operator = operator.for_task(puzzles.task)
        self.puzzles = puzzles
        self.depth = depth
        size = puzzles.task.size
        self.name = size if depth == recipe.depth else f"{size}@{depth}"
        self.recipe = recipe
        self.team = team
        self.device = operator.embedding.device
        native = native_step(self.operator, DTYPES[recipe.precision]) if compiled else None
        self.outer_step: Callable[[State, Tensor], State] = native or maybe_compiled(
            self.operator.outer_step, compiled
        )

    @torch.no_grad()
    def measure(self, weights: Mapping[str, Tensor]) -> Validation:
        """Exact accuracy with `weights` in place of the live ones."""
        live = {name: value.detach().clone() for name, value in self._parameters().items()}
        self._load(weights)
        try:
            exact, moved = self._run()
        finally:
            self._load(live)
        return Validation(
            self.name,
            len(exact),
            float(exact.float().mean()),
            float(moved[exact].median()) if exact.any() else float("nan"),
            float(moved[~exact].median()) if not exact.all() else float("nan"),
        )

    def _parameters(self) -> dict[str, Tensor]:
        return dict(self.operator.named_parameters())

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in self._parameters().items():
            value.copy_(weights[name])

    def _run(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(self.device).manual_seed(VALIDATION_SEED)
        dtype = DTYPES[self.recipe.precision]
        question = torch.from_numpy(self.puzzles.question).to(self.device)
        answer = torch.from_numpy(self.puzzles.answer).to(self.device)
        exact = torch.zeros(len(question), device=self.device)
        moved = torch.zeros_like(exact)
        for first in range(0, len(question), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            e = self.operator.embed(question[rows]).to(dtype)
            state = initial_state(self.operator, len(e), dtype, generator)
            if first // ROWS_AT_ONCE % self.team.size != self.team.rank:
                continue
            before = state
            for _ in range(self.depth):
                before, state = state, self.outer_step(state, e)
            predicted = self.operator.predict(self.operator.read(state)[0])
            exact[rows] = (predicted == answer[rows]).all(-1).float()
            moved[rows] = residual(state, before)
        return self.team.total(exact).bool().cpu(), self.team.total(moved).cpu()

"""The optimiser, its learning-rate schedule, and the running average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqr_core.errors import TrainingError
from eqr_core.model.operator import Operator
from eqr_core.training.recipe import Recipe

FINAL_LR = 0.02


class Optimizers:
    """Muon for the matrices and AdamW for the rest, or AdamW alone, stepped as one."""

    def __init__(self, operator: Operator, recipe: Recipe) -> None:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in operator.named_parameters():
            # Muon is made for the matrices inside; the table and the heads are none of them.
            inside = name.startswith("blocks.") and parameter.ndim == 2
            (matrices if inside and recipe.optimizer == "muon" else others).append(parameter)
        self.recipe = recipe
        self.parameters = matrices + others
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay, momentum=0.95
            )
            self.parts.append((muon, recipe.matrix_lr))
        adamw = torch.optim.AdamW(
            others, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
        )
        self.parts.append((adamw, recipe.lr))

    def step(self, number: int) -> float:
        """Clip, step and clear gradients for optimiser step `number`; returns their norm.

        TrainingError, before anything is changed, where the norm is not finite.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip))
        if not math.isfinite(norm):
            raise TrainingError(
                f"the gradient's norm is {norm} at optimiser step {number + 1}; "
                "a lower matrix_lr and lr may help"
            )
        scale = schedule(self.recipe, number)
        for optimizer, lr in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Every moment, by name, for the training state."""
        found: dict[str, Tensor] = {}
        for index, (optimizer, _) in enumerate(self.parts):
            for number, moments in optimizer.state_dict()["state"].items():
                for name, value in moments.items():
                    found[f"{index}.{number}.{name}"] = torch.as_tensor(value)
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for index, (optimizer, _) in enumerate(self.parts):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                part, number, name = key.split(".", 2)
                if int(part) == index:
                    state.setdefault(int(number), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def schedule(recipe: Recipe, number: int) -> float:
    """Factor on the learning rate at optimiser step `number`: warm-up, constant, linear fall."""
    rise = min(1.0, (number + 1) / max(1, recipe.warmup))
    left = 1 - number / recipe.steps
    fall = 1.0 if left >= recipe.decay else max(FINAL_LR, left / recipe.decay)
    return rise * fall


class Average:
    """Exponential moving average of the parameters (EMA), shorter while the run is young."""

    def __init__(self, operator: Operator, decay: float) -> None:
        self.decay = decay
        self.live = dict(operator.named_parameters())
        self.shadow = {name: value.detach().clone() for name, value in self.live.items()}

    def update(self, number: int) -> None:
        """Move towards the parameters after optimiser step `number`."""
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(
            list(self.shadow.values()), [value.detach() for value in self.live.values()], 1 - decay
        )

"""The optimiser, its learning-rate schedule, and the running average of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from eqr_core.model.operator import Operator
from eqr_core.training.recipe import Recipe

FINAL_LR = 0.02


class Optimizers:
    """Muon for the matrices and AdamW for the rest, or an Adam alone, stepped as one."""

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
        kind = AdamAtan2 if recipe.optimizer == "adam_atan2" else torch.optim.AdamW
        rest = kind(others, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
        self.parts.append((rest, recipe.lr))

    def step(self, scale: float) -> Tensor:
        """Clip, step at `scale` times the recipe's learning rates, clear; the norm, a scalar.

        The norm stays on its device. Where it is not finite the gradients count as zero, so
        that the weights outlast it until someone looks.
        """
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None]
        )
        factor = (self.recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        for parameter in self.parameters:
            if parameter.grad is not None:
                clipped = parameter.grad * factor
                parameter.grad = torch.where(norm.isfinite(), clipped, 0.0)
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


def schedule(recipe: Recipe, number: int, progress: float) -> float:
    """Factor on the learning rate: warm-up, constant, linear fall.

    `number` counts the optimiser steps done, `progress` (0 to 1) says how much of the run is.
    """
    rise = min(1.0, (number + 1) / max(1, recipe.warmup))
    left = 1 - progress
    fall = 1.0 if left >= recipe.decay else max(FINAL_LR, left / recipe.decay)
    return rise * fall


class AdamAtan2(torch.optim.Optimizer):
    """Adam whose step is atan2(m, √v) in place of m / (√v + ε), with decoupled weight decay.

    Everett et al. 2024 (arXiv:2407.05872), with both of their constants 1.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                mean = state["exp_avg"].lerp_(parameter.grad, 1 - first)
                square = state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - second)
                size = (square / (1 - second**count)).sqrt()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(torch.atan2(mean / (1 - first**count), size), alpha=group["lr"])


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

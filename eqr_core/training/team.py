"""The workers of a data-parallel run: each holds its share of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from eqr_core.errors import RecipeError


@dataclass(frozen=True)
class Team:
    """Who this worker is among how many. The one of rank 0 keeps the run's files.

    All draw the same random numbers for the whole batch and keep their rows, so what a run
    learns does not depend on the number of workers but for rounding.
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def joined() -> Team:
        """The team of the process group that torch.distributed has set up.

        The group must carry CPU tensors (gloo), and those of the device that computes.
        """
        return Team(dist.get_rank(), dist.get_world_size())

    def rows(self, batch: int) -> slice:
        """The worker's rows of a batch. RecipeError where the batch cannot be shared evenly."""
        if batch % self.size:
            raise RecipeError(f"batch is {batch}; it must be a multiple of {self.size} workers")
        count = batch // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its mean over the workers."""
        if self.size == 1:
            return
        # All workers run the same graph, so the same parameters have no gradient on each.
        held = [(p, p.grad) for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for _, gradient in held])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([gradient.numel() for _, gradient in held])
        for (parameter, _), part in zip(held, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the workers, in float64 on the host: no device is waited for."""
        if self.size == 1:
            return list(values)
        return self.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the workers, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """The whole batch of a tensor of which each worker has its rows."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

"""Every error that eqr_core raises on purpose.

EqrError
├── GridError            a grid that no task accepts, or that breaks its task's rules
├── BudgetError          a budget, seed, noise, selection or priority outside its limits
├── ModelError           an unknown model, or one that does not fit the grid
│   └── CheckpointError  a checkpoint that cannot be read, or whose digest is wrong
├── RecipeError          a training recipe with an unknown or impossible field
├── DataError            a puzzle file or packed data set that cannot be read
├── TrainingError        a run that cannot go on
├── QueueFull            the engine's waiting line is full
├── DeadlineExceeded     a deadline that passed before any outer step
└── EngineStopped        the engine no longer takes or finishes work
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass


class EqrError(Exception):
    """Base of all errors raised on purpose; its message is fit for a user's eyes."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input, and where.

    `place` is a path such as ``row 3, column 5``; rows and columns count from 1.
    """

    message: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class GridError(EqrError):
    """A grid that cannot be solved as given. `problems` lists every fault found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class BudgetError(EqrError):
    """A field of a budget or a request outside its limits. `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class ModelError(EqrError):
    """An unknown model, or one that does not fit the task or the grid's size."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be read, or whose content does not match its card."""


class RecipeError(EqrError):
    """A training recipe that is unknown, malformed or impossible."""


class DataError(EqrError):
    """A puzzle file or packed data set that cannot be read."""


class TrainingError(EqrError):
    """A training run that cannot go on; its last saved state is untouched."""


class QueueFull(EqrError):
    """The engine's waiting line is full; try again later."""


class DeadlineExceeded(EqrError):
    """The deadline passed before any outer step was made: there is no answer at all."""


class EngineStopped(EqrError):
    """The engine has been stopped, or its stepping thread has died."""


HUGE = 10**20
"""Integers from here on are not printed; Python refuses to print thousands of digits."""


def shown(value: object) -> str:
    """`value` for a message, short whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < HUGE else "an integer of more than 20 digits"
    if value is None or isinstance(value, str | float | bool):
        return reprlib.repr(value)
    return f"a value of type {type(value).__name__}"

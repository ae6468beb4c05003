"""What a task is: how a grid becomes tokens, tokens a grid, and when a grid is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eqr_core.errors import Problem

Cell = int | str
Grid = tuple[tuple[Cell, ...], ...]
Tokens = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ConstraintLayout:
    """A task's rules as exact cover, for operators that know the task's structure.

    Every (cell, value) pair is a candidate. `axes` factors the candidates into a box of that
    shape, cells first in row-major order and values last. A constraint family reduces some of
    the axes: each group of candidates that it leaves together holds exactly one true candidate.
    `weights[k]` names the projection that family k uses, so that families which are images of
    each other under the task's symmetries share one.
    """

    axes: tuple[int, ...]
    families: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]

    @property
    def values(self) -> int:
        """Number of values a cell can take."""
        return self.axes[-1]


class Task(ABC):
    """One kind of puzzle at one size. Instances are immutable and cheap."""

    name: str
    rows: int
    columns: int
    vocabulary: int
    blank_token: int
    first_value_token: int
    """Token of the first value a blank may take; values have consecutive tokens."""
    rating_edges: tuple[int, ...] = (0, 10, 30)
    """Highest ratings of the classes that evaluations tell apart; above them is one more."""

    @property
    def tokens(self) -> int:
        """Number of tokens of a grid, one a cell, in row-major order."""
        return self.rows * self.columns

    @property
    def size(self) -> str:
        """Rows and columns as text, for instance ``9x9``."""
        return f"{self.rows}x{self.columns}"

    @property
    @abstractmethod
    def layout(self) -> ConstraintLayout | None:
        """The rules as exact cover, or None where the task has no such form."""

    @property
    @abstractmethod
    def example(self) -> Grid:
        """An input that may be solved and is no answer yet: what a new engine warms up with."""

    @abstractmethod
    def encode(self, grid: Grid) -> Tokens:
        """Tokens of `grid`, uint8 [tokens]."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> Grid:
        """Grid of `tokens` [tokens]; a token that stands for no value becomes a blank."""

    @abstractmethod
    def validate(self, grid: Grid) -> list[Problem]:
        """Everything that forbids `grid` as an input; empty when it may be solved."""

    @abstractmethod
    def verify(self, grid: Grid, answer: Grid) -> bool:
        """Whether `answer` obeys the rules and extends the input `grid`."""

    @abstractmethod
    def text(self, grid: Grid) -> str:
        """`grid` on one line, in the form the task's parser takes."""


@dataclass(frozen=True)
class Family:
    """A task at all its sizes: what the registry in `eqr_core.tasks` needs to know of it."""

    name: str
    recognises: Callable[[object], bool]
    """Whether a raw grid whose task is not named belongs to this family."""
    at: Callable[[int, int], Task]
    """The task with so many rows and columns; ModelError where there is none."""
    parse: Callable[[object], tuple[Task, Grid]]
    """Task and valid grid of what a user wrote; GridError with every fault."""

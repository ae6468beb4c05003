"""The tree in the module's docstring is the tree there is."""

from __future__ import annotations

import inspect
import re

import pytest

from eqr_core import errors
from eqr_core.errors import BudgetError, EqrError, GridError, Problem


def all_errors() -> list[type[Exception]]:
    return [
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    ]


def drawn_tree() -> dict[str, str]:
    """Child and parent of every line of the drawing."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        drawn = re.match(r"^((?:[│├└─ ]{4})*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if drawn:
            level = len(drawn[1]) // 4
            path[level:] = [drawn[2]]
            parents[drawn[2]] = path[level - 1] if level else "Exception"
    return parents


def test_the_drawing_shows_every_error_under_its_base() -> None:
    assert drawn_tree() == {error.__name__: error.__base__.__name__ for error in all_errors()}  # type: ignore[union-attr]


def test_every_error_can_be_caught_as_one() -> None:
    assert len(all_errors()) > 5
    assert all(issubclass(error, EqrError) for error in all_errors())


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("12 is no digit", "row 3, column 5"), "row 3, column 5: 12 is no digit"),
        (Problem("8 rows"), "8 rows"),
    ],
)
def test_a_problem_reads_place_first(problem: Problem, text: str) -> None:
    assert str(problem) == text
    error = GridError([problem, Problem("more", "row 1")])
    assert error.problems[0] is problem
    assert str(error) == f"{text}; row 1: more"


def test_a_budget_error_names_its_field() -> None:
    error = BudgetError("depth", "0 is below 1")
    assert (error.field, str(error)) == ("depth", "depth: 0 is below 1")

"""The form of each task's puzzles, and whose form a text has.

A new task does with `Form` and needs no entry in FORMS.
"""

from __future__ import annotations

from eqr_core.data.form import Form
from eqr_core.data.maze_form import MazeForm
from eqr_core.data.sudoku_form import SudokuForm
from eqr_core.tasks import family_of
from eqr_core.tasks.base import Task

FORMS: dict[str, Form] = {form.name: form for form in (SudokuForm(), MazeForm())}


def form_of(name: str) -> Form:
    """The form of the task `name`."""
    return FORMS.get(name) or Form(name)


def task_of_text(question: str) -> Task:
    """The task and size that a puzzle's text shows; DataError where it is of no size."""
    return form_of(family_of(question).name).task_of(question)

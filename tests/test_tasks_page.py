"""docs/tasks.md: the third task that it adds is parsed, packed, trained and solved as it says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from eqr_core.data import forms
from eqr_core.data.packed import read_packed
from eqr_core.data.puzzles import write_puzzles
from eqr_core.errors import GridError
from eqr_core.solver import Solver
from eqr_core.tasks import FAMILIES
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"


def blocks(language: str) -> list[str]:
    parts = PAGE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    return [part.split("\n```")[0] for part in parts]


def test_the_page_adds_a_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A module of its own, as dataclasses look theirs up.
    module = ModuleType("latin")
    monkeypatch.setitem(sys.modules, "latin", module)
    source = "\n".join(blocks("python"))
    exec(compile(source, str(PAGE), "exec"), module.__dict__)
    family, form = module.FAMILY, module.LatinForm("latin")
    monkeypatch.setattr("eqr_core.tasks.FAMILIES", (family, *FAMILIES))
    monkeypatch.setitem(forms.FORMS, "latin", form)

    task = module.Latin()
    rows = list(form.generate(task, 30, 1, {"blanks": 5}))
    for row in rows:
        _, grid = family.parse(row.question)
        assert task.verify(grid, family.parse(row.answer)[1])
        assert not task.verify(grid, grid)
    with pytest.raises(GridError, match="row 1: a digit stands twice"):
        family.parse("11" + "." * 23)
    write_puzzles(tmp_path / "latin.csv", rows)
    assert read_packed(tmp_path / "latin.csv").task == task

    (tmp_path / "latin.toml").write_text(blocks("toml")[0], encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "latin.toml"))
    best = Trainer(recipe, tmp_path / "run", compiled=False).run()
    assert best > 0.5
    solver = Solver.load(tmp_path / "run" / "best")
    answers = solver.solve_many([row.question for row in rows])
    assert all(answer.task == "latin" for answer in answers)
    assert sum(answer.verified for answer in answers) > 15

"""Mazes through REST's and gRPC's messages and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eqr_core.cli import app
from eqr_core.engine.engine import Engine
from eqr_core.errors import GridError
from eqr_core.tasks.maze import Maze
from service.messages import answer_message, fields_of
from service.orders import answer_of, order_of
from service.replica import warm_engine
from service.schemas import SolveBody
from service.stubs import solver_pb2 as pb
from tests.checkpoints import save_random_maze

ROWS = ["#######", "#S    #", "# ### #", "#   #G#", "#######"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_random_maze(tmp_path / "tiny", name="tiny")
    return tmp_path / "tiny"


@pytest.fixture
def engine(folder: Path) -> Engine:
    return warm_engine([str(folder)], slots=2, queue=4)


def test_a_list_of_strings_and_a_text_are_the_same_order(engine: Engine) -> None:
    rest = order_of(SolveBody.model_validate({"grid": ROWS}), 1e4)
    fields = fields_of(pb.SolveRequest(grid="/".join(ROWS)))
    rpc = order_of(SolveBody.model_validate(fields), 1e4)
    assert rest.request.task == rpc.request.task == Maze(5, 7)
    assert rest.request.grid == rpc.request.grid
    (solved,) = engine.solve([rest.request_now("tiny")])
    answer = answer_of(rest, solved)
    assert answer.text == "/".join("".join(map(str, row)) for row in answer.grid)
    assert (answer.task, answer.model, answer.verified) == ("maze", "tiny", False)
    message = answer_message(answer)
    assert (message.text, message.task) == (answer.text, "maze")


def test_faults_reach_the_caller_with_their_places() -> None:
    with pytest.raises(GridError) as caught:
        order_of(SolveBody.model_validate({"grid": ["#?#", "#S#"]}), 1e4)
    places = [problem.place for problem in caught.value.problems]
    assert places == ["row 1, column 2", ""]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command_solves_a_maze(folder: Path, flags: list[str]) -> None:
    command = ["solve", "/".join(ROWS), "--model", str(folder), "--depth", "2", *flags]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    if flags:
        assert json.loads(result.output)["task"] == "maze"
    else:
        assert "model tiny" in result.output

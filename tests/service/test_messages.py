"""Between protobuf messages and the models of REST: nothing is lost, every fault is named."""

from __future__ import annotations

import math
import pickle
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st

from service.batch import body_of
from service.messages import (
    answer_message,
    event_message,
    fault_message,
    field_of,
    fields_of,
    item_message,
    job_message,
    model_message,
)
from service.problems import Refusal, refusal_of
from service.schemas import (
    BatchItem,
    FieldProblem,
    JobAnswer,
    JobProgress,
    JobState,
    ModelAnswer,
    ProgressAnswer,
    SolveAnswer,
    SolveBody,
)
from service.stubs import solver_pb2 as pb

ROOT = Path(__file__).parents[2]
FOUR = "1...4...2..3...."

ANSWER = SolveAnswer.model_validate(
    {
        "id": "a",
        "task": "sudoku",
        "model": "one",
        "grid": [[1]],
        "text": "1",
        "residual": 0.25,
        "converged": True,
        "verified": True,
        "finish_reason": "converged",
        "iterations": 3,
        "nfe": 6,
        "layers": 9,
        "breadth": {"started": 4, "converged": 2, "lost": 1},
        "agreement": 0.5,
        "confidence": 0.75,
        "seed": 2**64 - 1,
        "cached": True,
        "timing_ms": {"queue": 1.0, "solve": 2.0, "total": 4.0},
        "trajectories": [
            {
                "index": 1,
                "wave": 2,
                "iterations": 2,
                "residual": None,
                "converged": False,
                "verified": True,
                "outcome": "diverged",
                "text": "1",
                "history": [0.5, None],
            }
        ],
    }
)


def read(request: pb.SolveRequest) -> SolveBody:
    return body_of(fields_of(request))


def test_the_stubs_are_what_make_proto_makes(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "proto" / "generate.py"))
    made["generate"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(made["NAMES"])
    for name in made["NAMES"]:
        assert (tmp_path / name).read_text() == (made["STUBS"] / name).read_text(), name


def test_messages_travel_between_processes() -> None:
    message = pb.SolveBatchRequest(
        requests=[pb.SolveRequest(grid=FOUR, include=[pb.INCLUDE_HISTORY])]
    )
    assert pickle.loads(pickle.dumps(message)) == message


def test_the_empty_request_is_the_defaults_of_rest() -> None:
    assert read(pb.SolveRequest(grid=FOUR)) == SolveBody(grid=FOUR)


def test_every_field_arrives() -> None:
    request = pb.SolveRequest(
        grid=FOUR,
        task="sudoku",
        model="one",
        budget=pb.Budget(
            depth=3,
            breadth=4,
            nfe=7,
            deadline_ms=9.5,
            tolerance=0.25,
            stop=pb.STOP_EXHAUSTED,
            halt=pb.HALT_RESIDUAL,
            patience=2,
        ),
        seed=2**64 - 1,
        noise=0.5,
        selection=pb.SELECTION_MAJORITY,
        priority=-1000,
        include=[pb.INCLUDE_TRAJECTORIES, pb.INCLUDE_HISTORY],
        skip_cache=True,
    )
    given = read(request).model_dump(exclude_unset=True)
    assert given == {
        "grid": FOUR,
        "task": "sudoku",
        "model": "one",
        "budget": {
            "depth": 3,
            "breadth": 4,
            "nfe": 7,
            "deadline_ms": 9.5,
            "tolerance": 0.25,
            "stop": "exhausted",
            "halt": "residual",
            "patience": 2,
        },
        "seed": 2**64 - 1,
        "noise": 0.5,
        "selection": "majority",
        "priority": -1000,
        "include": ("trajectories", "history"),
        "cache": False,
    }


@pytest.mark.parametrize("name", ["depth", "breadth", "nfe", "deadline_ms", "tolerance"])
def test_a_limit_of_zero_is_given_and_not_the_default(name: str) -> None:
    budget = pb.Budget(**{name: 0})  # type: ignore[arg-type]
    body = read(pb.SolveRequest(grid=FOUR, budget=budget))
    assert getattr(body.budget, name) == 0


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"noise": math.nan}, "#/noise", "invalid_request"),
        ({"noise": -1.0}, "#/noise", "invalid_request"),
        ({"priority": 1001}, "#/priority", "invalid_request"),
        ({"selection": 9}, "#/selection", "invalid_request"),
        ({"include": [9]}, "#/include/0", "invalid_request"),
        ({"include": [1, 2, 1]}, "#/include", "invalid_request"),
        ({"task": "x" * 65}, "#/task", "invalid_request"),
        ({"budget": pb.Budget(stop=9)}, "#/budget/stop", "invalid_budget"),  # type: ignore[arg-type]
        ({"budget": pb.Budget(halt=9)}, "#/budget/halt", "invalid_budget"),  # type: ignore[arg-type]
        ({"budget": pb.Budget(tolerance=math.inf)}, "#/budget/tolerance", "invalid_budget"),
    ],
)
def test_a_value_outside_its_limits_is_named(
    fields: dict[str, Any], pointer: str, code: str
) -> None:
    with pytest.raises(RequestValidationError) as caught:
        read(pb.SolveRequest(grid=FOUR, **fields))
    refusal = refusal_of(caught.value)
    assert refusal is not None
    assert refusal.code == code
    assert [error.pointer for error in refusal.errors] == [pointer]


@given(st.binary(max_size=200))
def test_whatever_can_be_read_is_a_body_or_a_refusal(data: bytes) -> None:
    try:
        request = pb.SolveRequest.FromString(data)
    except Exception:
        return
    try:
        read(request)
    except RequestValidationError as error:
        assert refusal_of(error) is not None


def test_an_answer_arrives_whole() -> None:
    message = answer_message(ANSWER)
    document = ANSWER.model_dump(exclude={"trajectories", "breadth", "timing_ms", "grid"})
    assert {name: getattr(message, name) for name in document} == document
    assert (message.breadth.started, message.breadth.converged, message.breadth.lost) == (4, 2, 1)
    timing = message.timing_ms
    assert (timing.queue, timing.solve, timing.total) == (1.0, 2.0, 4.0)
    (one,) = message.trajectories
    assert not one.HasField("residual")
    assert (one.index, one.wave, one.iterations, one.outcome, one.text) == (
        1,
        2,
        2,
        "diverged",
        "1",
    )
    assert (one.converged, one.verified) == (False, True)
    assert one.history[0] == 0.5
    assert math.isnan(one.history[1])


def test_a_residual_that_is_not_finite_is_absent() -> None:
    bare = ANSWER.model_copy(update={"residual": None, "confidence": None, "trajectories": None})
    message = answer_message(bare)
    assert not message.HasField("residual")
    assert not message.HasField("confidence")
    assert not message.trajectories
    assert answer_message(ANSWER).HasField("residual")


def test_events_tell_which_they_are() -> None:
    progress = ProgressAnswer(iteration=2, residual=0.5, grid=[[1]], text="1")
    told = event_message(progress)
    assert told.WhichOneof("event") == "progress"
    assert (told.progress.iteration, told.progress.residual, told.progress.text) == (2, 0.5, "1")
    assert event_message(ANSWER).WhichOneof("event") == "result"


def test_a_model_arrives_whole() -> None:
    model = ModelAnswer(
        name="one",
        task="sudoku",
        sizes=["4x4", "9x9"],
        parameters=5,
        digest="ab",
        tolerance=None,
        description="d",
        license="l",
        results=[],
    )
    message = model_message(model)
    assert list(message.sizes) == ["4x4", "9x9"]
    assert (message.name, message.task, message.parameters) == ("one", "sudoku", 5)
    assert (message.digest, message.description, message.license) == ("ab", "d", "l")
    assert not message.HasField("tolerance")


def test_an_item_is_an_answer_or_an_error_or_nothing() -> None:
    fault = FieldProblem(pointer="#/grid", place="row 1", message="m")
    problem = Refusal("invalid_grid", "why", [fault]).document("id")
    assert item_message(BatchItem(answer=ANSWER)).answer.text == ANSWER.text
    error = item_message(BatchItem(error=problem)).error
    assert (error.code, error.detail) == ("invalid_grid", "why")
    assert [(one.field, one.place, one.message) for one in error.faults] == [("grid", "row 1", "m")]
    assert item_message(None).WhichOneof("outcome") is None


@pytest.mark.parametrize("state", get_args(JobState))
def test_a_job_arrives_whole(state: JobState) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    job = JobAnswer(
        id="a", state=state, progress=JobProgress(done=1, total=2), created_at=moment, error="why",
        ended_at=moment, results=[BatchItem(answer=ANSWER), None],
    )  # fmt: skip
    message = job_message(job)
    assert pb.JobState.Name(message.state) == f"JOB_STATE_{state.upper()}"
    assert (message.id, message.done, message.total, message.error) == ("a", 1, 2, "why")
    assert message.created_ms == message.ended_ms == 1_767_323_045_678
    assert not message.HasField("expires_ms")
    assert [one.WhichOneof("outcome") for one in message.results] == ["answer", None]


def test_pointers_become_field_paths() -> None:
    assert field_of("#/budget/depth") == "budget.depth"
    assert field_of("#/a~1b/c~0d") == "a/b.c~d"
    assert field_of("#") == ""
    fault = fault_message(FieldProblem(pointer="#/grid", place="row 1", message="m"))
    assert (fault.field, fault.place, fault.message) == ("grid", "row 1", "m")

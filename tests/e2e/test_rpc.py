"""gRPC against the real service: answers, streams, errors, deadlines, health, reflection."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.stubs import solver_pb2 as pb
from service.stubs.solver_pb2_grpc import SolverStub
from tests.e2e.conftest import HTTP, QUEUE, SLOTS, eventually, samples

FOUR = "1...4...2..3...."
NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
LONG = pb.Budget(depth=4096, breadth=1024, stop=pb.STOP_EXHAUSTED, deadline_ms=3_600_000)


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return SolverStub(channel)


def failed(call: Any) -> tuple[grpc.RpcError, ErrorInfo, Status]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailing = dict(caught.value.trailing_metadata())
    status = Status.FromString(trailing["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert trailing["x-request-id"] == info.metadata["request_id"]
    assert "Traceback" not in str(caught.value)
    return caught.value, info, status


def test_it_answers_as_rest_does(stub: Any, server_url: str) -> None:
    message = stub.Solve(
        pb.SolveRequest(
            grid=FOUR,
            model="other",
            seed=7,
            budget=pb.Budget(depth=5, breadth=3, stop=pb.STOP_EXHAUSTED),
            include=[pb.INCLUDE_HISTORY],
            skip_cache=True,
        )
    )
    body = {
        "grid": FOUR,
        "model": "other",
        "seed": 7,
        "budget": {"depth": 5, "breadth": 3, "stop": "exhausted"},
        "include": ["history"],
    }
    answer = HTTP.post(f"{server_url}/solve", json=body).json()
    for name in ("task", "model", "text", "residual", "converged", "verified", "finish_reason",
                 "iterations", "nfe", "layers", "agreement", "seed"):  # fmt: skip
        assert getattr(message, name) == answer[name]
    assert [list(one.history) for one in message.trajectories] == [
        one["history"] for one in answer["trajectories"]
    ]
    assert message.timing_ms.total > 0


def test_models_are_listed(stub: Any, server_url: str) -> None:
    names = [model.name for model in stub.ListModels(pb.ListModelsRequest()).models]
    assert names == [one["name"] for one in HTTP.get(f"{server_url}/models").json()["models"]]


def test_a_batch_has_an_end_for_each_item(stub: Any) -> None:
    budget = pb.Budget(depth=3, breadth=1)
    requests = [
        pb.SolveRequest(grid=FOUR, seed=1, model="other", budget=budget),
        pb.SolveRequest(grid="1"),
        pb.SolveRequest(grid=FOUR, seed=2, model="other", budget=budget),
    ]
    first, second, third = stub.SolveBatch(pb.SolveBatchRequest(requests=requests)).results
    assert (first.answer.seed, third.answer.seed) == (1, 2)
    assert second.error.code == "invalid_grid"
    assert [fault.field for fault in second.error.faults] == ["grid"]
    error, info, _ = failed(lambda: stub.SolveBatch(pb.SolveBatchRequest()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "invalid_request"


def test_a_job_runs_and_is_read_by_both_ways_in(stub: Any, server_url: str) -> None:
    one = pb.SolveRequest(grid=FOUR, model="other", budget=pb.Budget(depth=3, breadth=1))
    request = pb.SubmitJobRequest(requests=[one, one], idempotency_key=f"job-{time.time_ns()}")
    job = stub.SubmitJob(request).job
    assert job.total == 2
    assert stub.SubmitJob(request).job.id == job.id
    ask = pb.GetJobRequest(id=job.id)
    eventually(lambda: stub.GetJob(ask).job.state == pb.JOB_STATE_DONE)
    done = stub.GetJob(ask).job
    assert (done.done, done.total) == (2, 2)
    assert [end.WhichOneof("outcome") for end in done.results] == ["answer", "answer"]
    assert done.created_ms <= done.ended_ms < done.expires_ms
    told = HTTP.get(f"{server_url}/jobs/{job.id}").json()
    assert [end["answer"]["text"] for end in told["results"]] == [
        end.answer.text for end in done.results
    ]
    assert stub.CancelJob(pb.CancelJobRequest(id=job.id)).job.state == pb.JOB_STATE_DONE
    error, info, _ = failed(lambda: stub.GetJob(pb.GetJobRequest(id="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert info.reason == "unknown_job"


def test_a_job_is_cancelled(stub: Any, server_url: str) -> None:
    job = stub.SubmitJob(
        pb.SubmitJobRequest(requests=[pb.SolveRequest(grid=NINE, budget=LONG)])
    ).job
    eventually(lambda: samples(server_url)["eqr_slots_busy"] > 0)
    assert stub.CancelJob(pb.CancelJobRequest(id=job.id)).job.state == pb.JOB_STATE_CANCELLED
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)
    (end,) = stub.GetJob(pb.GetJobRequest(id=job.id)).job.results
    assert end.WhichOneof("outcome") is None


def test_an_idempotency_key_repeats_the_first_answer(stub: Any) -> None:
    metadata = [("idempotency-key", f"solve-{time.time_ns()}")]
    request = pb.SolveRequest(grid=FOUR, model="other", skip_cache=True)
    first = stub.Solve(request, metadata=metadata)
    assert stub.Solve(request, metadata=metadata) == first
    other = pb.SolveRequest(grid=FOUR, model="other", seed=1)
    error, info, _ = failed(lambda: stub.Solve(other, metadata=metadata))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert info.reason == "idempotency_conflict"


def test_a_bad_request_has_details_and_its_id(stub: Any) -> None:
    request = pb.SolveRequest(grid="11" + "." * 14, budget=pb.Budget(depth=5))
    error, info, status = failed(lambda: stub.Solve(request, metadata=[("x-request-id", "my-id")]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (info.reason, info.metadata["request_id"]) == ("invalid_grid", "my-id")
    bad = BadRequest()
    assert status.details[1].Unpack(bad)
    assert "row 1" in bad.field_violations[0].description


def test_an_unknown_model_is_not_found_in_a_call_and_in_a_stream(stub: Any) -> None:
    request = pb.SolveRequest(grid=FOUR, model="nobody")
    for call in (
        lambda: stub.Solve(request),
        lambda: next(stub.SolveStream(pb.SolveStreamRequest(request=request))),
    ):
        error, info, _ = failed(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert info.reason == "unknown_model"


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    error, info, _ = failed(lambda: channel.unary_unary("/eqr.v1.Solver/Solve")(b"\x0a\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "bad_request"


def test_a_message_above_the_limit_is_refused(stub: Any) -> None:
    error, info, _ = failed(lambda: stub.Solve(pb.SolveRequest(grid="." * (1 << 21))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "body_too_large"


def test_the_deadline_of_the_call_gives_the_best_answer_so_far(stub: Any) -> None:
    request = pb.SolveRequest(grid=NINE, budget=LONG)
    answer = stub.Solve(request, timeout=5)
    assert answer.finish_reason == "deadline"
    *told, last = stub.SolveStream(pb.SolveStreamRequest(request=request), timeout=5)
    assert last.result.finish_reason == "deadline"
    assert len(told) > 3
    assert all(len(one.progress.text) == 81 for one in told)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_goes_away_frees_its_slots(stub: Any, server_url: str, streams: bool) -> None:
    request = pb.SolveRequest(grid=NINE, budget=LONG)
    if streams:
        call = stub.SolveStream(pb.SolveStreamRequest(request=request))
        assert next(call).WhichOneof("event") == "progress"
    else:
        call = stub.Solve.future(request)
    eventually(lambda: samples(server_url)["eqr_slots_busy"] > 0)
    call.cancel()
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)


def test_a_full_queue_is_told_at_once(stub: Any, server_url: str) -> None:
    request = pb.SolveRequest(grid=NINE, budget=pb.Budget(depth=4096, stop=pb.STOP_EXHAUSTED))
    request.budget.breadth = 1
    # A time of its own: what is like the refused may not reach a solver for a moment.
    request.budget.deadline_ms = 50_000
    seen, first = [], threading.Event()
    calls = []

    def ended(call: Any) -> None:
        if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            seen.append(call)
            first.set()

    for seed in range(SLOTS + QUEUE + 20):
        request.seed = seed
        call = stub.Solve.future(request)
        call.add_done_callback(ended)
        calls.append(call)
    first.wait()
    for call in calls:
        call.cancel()
    _, info, status = failed(seen[0].result)
    assert info.reason == "queue_full"
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds >= 1
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)


def test_the_standard_health_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "eqr.v1.Solver"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == serving
    watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_shows_the_contract(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest
    listed, found = stub.ServerReflectionInfo(
        iter([asked(list_services=""), asked(file_containing_symbol="eqr.v1.Solver")])
    )
    names = {one.name for one in listed.list_services_response.service}
    assert {"eqr.v1.Solver", "grpc.health.v1.Health"} <= names
    assert pb.DESCRIPTOR.serialized_pb in found.file_descriptor_response.file_descriptor_proto

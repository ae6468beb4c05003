"""Messages of eqr.v1 with bytes changed at random, and bytes that are none."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import grpc
from google.protobuf.message import Message

from service.stubs import solver_pb2 as pb

SERVICE = "/eqr.v1.Solver/"
GRID = "1.....3..4.....2"
SECONDS = 120.0
"""No call may take longer; a solve that would ends with its own deadline first."""

FAULTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNIMPLEMENTED,
)
DETAILS_KEY = "grpc-status-details-bin"


class Broken(Exception):
    """The service answered as it must not; the message has the bytes that show it."""


def fuzz_rpc(target: str, cases: int, number: int = 0) -> Counter[str]:
    """Send `cases` mutated messages to the service at `target`, decided by `number`.

    Returns how often each method gave each status. Broken for a status that is the service's
    fault, and for one without the service's details.
    """
    source = random.Random(number)
    told: Counter[str] = Counter()
    with grpc.insecure_channel(target) as channel:
        for _ in range(cases):
            method, streams, valid = source.choice(_valid())
            data = mutated(valid, source)
            code = _send(channel, method, streams, data)
            told[f"{method} {code.name}"] += 1
    return told


def _valid() -> list[tuple[str, bool, bytes]]:
    """Each method, whether it answers with a stream, and a request that it takes."""
    budget = pb.Budget(depth=8, breadth=2, nfe=16, deadline_ms=500, tolerance=0.1)
    one = pb.SolveRequest(
        grid=GRID,
        task="sudoku",
        budget=budget,
        seed=7,
        noise=0.1,
        selection=pb.SELECTION_MAJORITY,
        priority=-3,
        include=[pb.INCLUDE_HISTORY],
        skip_cache=True,
    )
    requests: list[tuple[str, bool, Message]] = [
        ("Solve", False, one),
        ("SolveStream", True, pb.SolveStreamRequest(request=one)),
        ("SolveBatch", False, pb.SolveBatchRequest(requests=[one, one])),
        ("SubmitJob", False, pb.SubmitJobRequest(requests=[one], idempotency_key="key")),
        ("GetJob", False, pb.GetJobRequest(id="nobody")),
        ("CancelJob", False, pb.CancelJobRequest(id="nobody")),
        ("ListModels", False, pb.ListModelsRequest()),
    ]
    return [(name, streams, request.SerializeToString()) for name, streams, request in requests]


def mutated(data: bytes, source: random.Random) -> bytes:
    """`data` after a few random changes, mostly one: more of them seldom leave a message."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        place = source.randint(0, len(changed))
        source.choice(_CHANGES)(changed, place, source)
    return bytes(changed)


def _flip(data: bytearray, place: int, source: random.Random) -> None:
    if data:
        data[place % len(data)] ^= 1 << source.randrange(8)


def _insert(data: bytearray, place: int, source: random.Random) -> None:
    data[place:place] = source.randbytes(source.choice((1, 2, 9, 200)))


def _delete(data: bytearray, place: int, source: random.Random) -> None:
    del data[place : place + source.choice((1, 2, 9))]


def _repeat(data: bytearray, place: int, source: random.Random) -> None:
    data[place:place] = data[place : place + source.randint(1, 40)] * source.randint(1, 8)


def _extreme(data: bytearray, place: int, source: random.Random) -> None:
    """A varint or a float at an end of its range."""
    ends = (b"\x00", b"\x7f", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f")
    floats = (b"\x00\x00\x00\x00\x00\x00\xf0\x7f", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")
    value = source.choice(ends + floats)
    data[place : place + len(value)] = value


def _field(data: bytearray, place: int, source: random.Random) -> None:
    """A whole field more, of any number and wire type."""
    tag = source.randint(1, 30) << 3 | source.randrange(8)
    data += (tag & 0x7F | 0x80).to_bytes(1, "big") + (tag >> 7).to_bytes(1, "big")
    data += source.randbytes(source.randint(0, 12))


_CHANGES: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    _flip,
    _insert,
    _delete,
    _repeat,
    _extreme,
    _field,
)


def _send(channel: grpc.Channel, method: str, streams: bool, data: bytes) -> grpc.StatusCode:
    try:
        if streams:
            for _ in channel.unary_stream(SERVICE + method)(data, timeout=SECONDS):
                pass
        else:
            channel.unary_unary(SERVICE + method)(data, timeout=SECONDS)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        has_details = DETAILS_KEY in dict(error.trailing_metadata() or ())
        if code in FAULTS or not has_details:
            shown = f"{method} {code.name} {error.details()!r} details: {has_details}"
            raise Broken(f"{shown}\n{data.hex()}") from None
        return code
    return grpc.StatusCode.OK

"""A few generated and mutated requests against the real service; `make fuzz` sends many."""

from __future__ import annotations

import random
from collections import Counter

from benchmarks.fuzz_rest import fuzz_rest
from benchmarks.fuzz_rpc import fuzz_rpc, mutated
from tests.e2e.conftest import HTTP, Server


def test_generated_requests_break_nothing(server: Server) -> None:
    told = fuzz_rest(server.url, 120)
    assert told.total() >= 120
    operations = Counter(key.rpartition(" ")[0] for key in told)
    assert {"POST /solve", "POST /solve/batch", "POST /jobs", "GET /models"} <= set(operations)
    assert HTTP.get(f"{server.url}/health/ready").status_code == 200


def test_mutated_messages_break_nothing(server: Server) -> None:
    told = fuzz_rpc(server.grpc, 300)
    assert told.total() == 300
    statuses = {key.partition(" ")[2] for key in told}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= statuses
    assert HTTP.get(f"{server.url}/health/ready").status_code == 200


def test_mutations_change_and_repeat() -> None:
    data = bytes(range(50))
    found = [mutated(data, random.Random(number)) for number in range(50)]
    assert found == [mutated(data, random.Random(number)) for number in range(50)]
    assert sum(one != data for one in found) > 45

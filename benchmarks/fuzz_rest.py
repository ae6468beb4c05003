"""Schemathesis over the OpenAPI document: requests that fit it, and requests that do not."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
ALLOWED = (503, 504)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
ROUNDS = 20
SECONDS = 120.0
DEADLINE_MS = 200


class Broken(Exception):
    """The service answered as it must not; the message has a request that shows it."""


def fuzz_rest(url: str, cases: int, number: int = 0) -> Counter[str]:
    """Send at least `cases` generated requests to the service at `url`, decided by `number`.

    Returns how often each operation gave each status. Broken where one was another 5xx than 503
    and 504, was none that the document has, or took longer than two minutes.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    if not operations or len(operations) < len(found):
        raise Broken(f"{url}/openapi.json describes operations that cannot be understood")
    each = -(-cases // (len(operations) * len(MODES)))
    told: Counter[str] = Counter()
    with requests.Session() as session:
        # What takes no input has few different requests, so one round may not be enough.
        for round_number in range(ROUNDS):
            for operation in operations:
                for mode in MODES:
                    _fuzz(operation, mode, session, url, each, number + round_number, told)
            if told.total() >= cases:
                return told
    raise Broken(f"only {told.total()} different requests of {cases} were found")


def _fuzz(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    session: requests.Session,
    url: str,
    cases: int,
    number: int,
    told: Counter[str],
) -> None:
    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case[Any]) -> None:
        for body in _solves(case.body):
            _hurry(body)
        try:
            response = case.call(base_url=url, session=session, timeout=SECONDS)
            told[f"{operation.method.upper()} {operation.path} {response.status_code}"] += 1
            if response.status_code >= 500 and response.status_code not in ALLOWED:
                raise Broken(f"{response.status_code}: {response.text[:500]}")
            case.validate_response(response, checks=CHECKS)
        except (Broken, Failure, FailureGroup, requests.RequestException) as error:
            raise Broken(f"{case.as_curl_command()[:2000]}\n{error}") from None

    with suppress(Unsatisfiable):  # an operation without input has nothing that could be wrong
        send()


def _solves(body: object) -> list[dict[str, Any]]:
    """What stands in `body` where solves would."""
    inner = body.get("requests", body) if isinstance(body, dict) else body
    return [one for one in (inner if isinstance(inner, list) else [inner]) if isinstance(one, dict)]


def _hurry(body: dict[str, Any]) -> None:
    """Give a solve without a deadline one that is near: valid budgets may be hours of work."""
    budget = body.setdefault("budget", {}) if "grid" in body else body.get("budget")
    if isinstance(budget, dict):
        budget.setdefault("deadline_ms", DEADLINE_MS)

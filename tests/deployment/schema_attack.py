"""Schemathesis: requests invented from what /openapi.json promises, and the answers held against it."""

from __future__ import annotations

import time

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

# Not "what fits the schema is accepted": bytes that are no picture fit it.
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
]  # fmt: skip


def attack(url: str, examples: int, number: int = 0) -> list[str]:
    """What failed, in words: `examples` invented requests to each operation that the service describes."""
    failures = []
    for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = result.ok()

        @seed(number)
        @settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate], derandomize=False,
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def invent(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=20)

        try:
            invent()
        except (Exception, schemathesis.core.failures.FailureGroup) as error:  # a failed check, or no answer at all
            failures.append(f"{operation.label}: {error}")
    return failures


def attack_for(url: str, seconds: float) -> int:
    """The same for so long, with other requests each time; prints the failures, returns their number."""
    deadline, rounds, failures = time.monotonic() + seconds, 0, set[str]()
    while time.monotonic() < deadline:
        failures.update(attack(url, 50, rounds))
        rounds += 1
    print(f"schemathesis: {rounds} rounds of 50 requests to each operation, {len(failures)} failures")
    for failure in failures:
        print(f"    FAULT: {failure}")
    return len(failures)

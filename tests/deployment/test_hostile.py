"""A quick part of tests/deployment/hostile.py: the attacks that need no patience, on the real service in its own process."""

from __future__ import annotations

import json

import pytest
from hostile import KEY, LIMITS, Prober, faults_of, kill_and_restart, stop_gracefully, unanswered_errors
from hostile_requests import ATTACKS, KEYED
from running import export_model, running

pytestmark = pytest.mark.timeout(120)

SETS = {"open": [attack for attack in ATTACKS if not attack.slow], "keyed": KEYED}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export_model(tmp_path_factory.mktemp("hostile") / "model.onnx")


@pytest.fixture(scope="module")
def services(model):
    options = "--limits", json.dumps(LIMITS)
    with running(model, *options) as without, running(model, *options, "--api-key", KEY) as keyed:
        yield {"open": without, "keyed": keyed}


@pytest.mark.parametrize(
    ("kind", "attack"),
    [pytest.param(kind, attack, id=f"{kind}: {attack.name}") for kind, attacks in SETS.items() for attack in attacks],
)
def test_the_service_withstands(services, kind, attack):
    service = services[kind]
    service.peak = 0
    with Prober(service) as prober:
        replies = attack.make(service.address)
    assert list(faults_of(attack, replies, service, prober.worst)) == []


@pytest.mark.parametrize(("kind", "key"), [("open", None), ("keyed", KEY)])
def test_the_service_has_counted_no_error_of_its_own(services, kind, key):
    assert unanswered_errors(services[kind], key) == []


def test_a_kill_in_the_middle_of_requests_leaves_a_log_that_reads(model, tmp_path):
    assert kill_and_restart(model, tmp_path / "log.jsonl") == []


def test_told_to_stop_it_answers_what_it_has_taken(model):
    assert stop_gracefully(model) == []

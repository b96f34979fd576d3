"""The service keeps what its /openapi.json promises, whatever fits the description."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis", reason="pip install schemathesis")
from running import export_model
from schema_attack import attack

from dlcourse.deployment import BackgroundServer, Predictor, create_app

pytestmark = pytest.mark.timeout(120)


def test_no_invented_request_is_answered_otherwise_than_promised(tmp_path):
    predictor = Predictor(export_model(tmp_path / "model.onnx"))
    with BackgroundServer(create_app(predictor)) as server:
        assert attack(server.url, examples=15) == []

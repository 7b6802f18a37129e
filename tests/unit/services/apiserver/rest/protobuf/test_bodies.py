"""Bodies that a real kubectl sent decode into the objects that it meant (`record.py` made the file)."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest

from services.apiserver.rest import protobuf

BODIES = json.loads((pathlib.Path(__file__).parent / "bodies.json").read_bytes())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    if isinstance(value, list):
        return [_without_nulls(below) for below in value]
    return value


@pytest.mark.parametrize("recorded", BODIES, ids=lambda recorded: recorded["command"])
def test_what_kubectl_sends_is_the_object_that_it_prints(recorded: dict[str, Any]) -> None:
    body = base64.b64decode(recorded["body"])

    decoded = protobuf.decode(body)

    assert recorded["contentType"] == protobuf.MEDIA_TYPE
    assert decoded == _without_nulls(recorded["object"])
    assert protobuf.decode(protobuf.encode(decoded)) == decoded


def test_the_recording_covers_what_kubectl_can_create() -> None:
    kinds = {recorded["object"]["kind"] for recorded in BODIES}

    assert {"Deployment", "Job", "CronJob", "Secret", "Ingress", "ResourceQuota", "TokenRequest"} <= kinds
    assert len(kinds) >= 18

"""What a probe says that had no answer in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lightkube.models import core_v1

from services.kubelet.handlers import Handlers
from tests.support.kubelet_pods import pod


@pytest.mark.parametrize(("host", "address"), [("10.0.0.1", "10.0.0.1:80"), ("fd00::1", "[fd00::1]:80")])
async def test_a_tcp_probe_without_an_answer_names_the_address(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unanswered(*_arguments: Any, **_more: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(asyncio, "open_connection", unanswered)
    spec = pod()
    probe = core_v1.Probe(tcpSocket=core_v1.TCPSocketAction(port=80))
    handlers = Handlers(None)  # type: ignore[arg-type]
    outcome = await handlers.probe(spec, spec.spec.containers[0], probe, "c0", [host])
    assert (outcome.ok, outcome.message) == (False, f"dial tcp {address}: i/o timeout")

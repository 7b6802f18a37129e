"""The values that field selectors see."""

from __future__ import annotations

import pytest

from services.apiserver.selection import extractor


@pytest.mark.parametrize(
    ("event", "source"),
    [
        ({"source": {"component": "kubelet"}, "reportingComponent": "other"}, "kubelet"),
        # As the newer API group writes them.
        ({"reportingComponent": "controller"}, "controller"),
        ({"source": {}, "reportingComponent": "controller"}, "controller"),
        ({}, ""),
    ],
)
def test_an_events_source_is_its_component_or_else_who_reports(event: dict[str, object], source: str) -> None:
    extract = extractor(("reason", "source"))
    assert extract({"reason": "Started", **event}) == ("Started", source)

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import errors
from machinery.component import grpc_errors, health, logs


def test_readiness_names_the_check_that_fails_and_liveness_does_not_care() -> None:
    checks = health.Health()
    checks.add_ready("informers", lambda: "waiting for pods")
    assert checks.is_live
    assert not checks.is_ready
    well, text = health.report("readyz", checks.ready(), verbose=False)
    assert not well
    assert text.splitlines() == [
        "[+]ping ok",
        "[-]informers failed: waiting for pods",
        "[+]shutdown ok",
        "readyz check failed",
    ]
    checks.add_ready("informers", lambda: None)
    assert health.report("readyz", checks.ready(), verbose=False) == (True, "ok")
    checks.stopping = True
    assert checks.is_live
    assert not checks.is_ready


def test_a_check_that_breaks_is_a_check_that_fails() -> None:
    checks = health.Health()
    checks.add_live("odd", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not checks.is_live


ERRORS = [cls for cls in errors.ApiError.__subclasses__() if cls.reason]


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_survives_its_message(cls: type[errors.ApiError]) -> None:
    cause = errors.Cause("FieldValueInvalid", "must be positive", "spec.replicas")
    error = cls("no", group="apps", resource="deployments", name="web", uid="u", causes=[cause], retry_after_seconds=3)
    again = grpc_errors.error_of(grpc_errors.status_message(error))
    assert type(again) is cls
    assert again.to_status() == error.to_status()


@given(st.integers(0, 3000), st.integers(0, 2000))
def test_an_error_of_any_size_fits_into_a_trailer(causes: int, length: int) -> None:
    error = errors.Invalid(
        "x" * length, causes=[errors.Cause("FieldValueInvalid", "y" * 60, f"spec[{i}]") for i in range(causes)]
    )
    details = grpc_errors._details(error)
    assert len(details) * 4 / 3 < grpc_errors.METADATA_BYTES_MAX


def test_logs_are_one_json_object_a_line_with_the_message_constant() -> None:
    stream = io.StringIO()
    logs.setup("part", "info", "json", stream)
    logs.get("room").info("queue resumed", depth=3)
    logs.get().debug("not shown")
    logging.getLogger("library").warning("%s is odd", "it")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert {k: v for k, v in first.items() if k != "time"} == {
        "level": "info", "msg": "queue resumed", "component": "part", "module": "room", "depth": 3,
    }  # fmt: skip
    assert (second["msg"], second["level"], second["module"]) == ("it is odd", "warning", "library")

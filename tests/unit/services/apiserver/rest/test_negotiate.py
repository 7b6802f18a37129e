"""Which form an answer takes."""

from __future__ import annotations

import pytest

from machinery.api import errors
from services.apiserver.rest import negotiate

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "media_type", "transform"),
    [
        ("", "application/json", ""),
        ("*/*", "application/json", ""),
        ("application/yaml", "application/yaml", ""),
        ("application/vnd.kubernetes.protobuf,application/json", "application/json", ""),
        (f"{TABLE},application/json", "application/json", "Table"),
        (f"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,{TABLE}", "application/json", "Table"),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json", "application/json", ""),
        ("application/json;q=0.1,application/yaml;q=0.9", "application/yaml", ""),
        ("application/json;stream=watch", "application/json", ""),
    ],
)
def test_the_best_form_that_we_have(accept: str, media_type: str, transform: str) -> None:
    form = negotiate.choose(accept, negotiate.LIST_TRANSFORMS)
    assert (form.media_type, form.transform) == (media_type, transform)


def test_protobuf_only_for_who_takes_nothing_else() -> None:
    form = negotiate.choose("application/vnd.kubernetes.protobuf")
    assert form.media_type == negotiate.PROTOBUF
    with pytest.raises(errors.NotAcceptable):
        negotiate.choose("application/vnd.kubernetes.protobuf", protobuf=False)
    watch = "application/vnd.kubernetes.protobuf;stream=watch"
    assert negotiate.choose(watch, stream=True).media_type == negotiate.PROTOBUF
    assert negotiate.choose(f"{watch},application/json;stream=watch", stream=True).media_type == negotiate.JSON


@pytest.mark.parametrize(
    "accept", ["application/vnd.kubernetes.protobuf;stream=watch", "text/html", "application/json;q=0", ";;;"]
)
def test_nothing_that_we_have(accept: str) -> None:
    with pytest.raises(errors.NotAcceptable):
        negotiate.choose(accept)

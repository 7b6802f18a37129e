"""The manifests of a well-known introduction to Kubernetes: some are mis-indented or incomplete, as first drafts are.

As written each is refused, and the error names the line or the field; corrected each is accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machinery.api import errors, kinds
from services.apiserver.rest.bodies import decode_yaml
from services.apiserver.schema import defaults, intake, validate
from services.apiserver.schema.custom import CustomSchema
from services.apiserver.schema.rules import metadata

MANIFESTS = Path(__file__).parent / "manifests"
SHIRT = kinds.Kind("stable.example.com", "v1", "Shirt", "shirts")
Obj = dict[str, Any]


def submit(text: bytes) -> Obj:
    """What the apiserver does with a manifest, up to storing it. Raises the error that its author sees."""
    obj = decode_yaml(text)
    kind = kinds.find(obj["apiVersion"], obj["kind"])
    if kind is None and (obj["apiVersion"], obj["kind"]) == (SHIRT.api_version, SHIRT.kind):
        return submit_custom(obj)
    if kind is None:
        raise errors.NotFound(f'no matches for kind "{obj["kind"]}" in version "{obj["apiVersion"]}"')
    warnings = intake.take_in(kind, obj, "Strict")
    assert warnings == []
    if kind.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    defaults.apply_defaults(kind, obj)
    if causes := validate.validate_create(kind, obj):
        raise errors.invalid(kind.group, kind.kind, obj["metadata"]["name"], causes)
    return obj


def submit_custom(obj: Obj) -> Obj:
    definition = submit((MANIFESTS / "corrected" / "crd.yaml").read_bytes())
    schema = CustomSchema(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind="Shirt", version="v1")
    schema.take_in(obj, "Strict")
    schema.default(obj)
    obj["metadata"].setdefault("namespace", "default")
    causes = metadata.create(SHIRT, obj["metadata"], namespaced=True) + schema.validate_create(obj)
    if causes:
        raise errors.invalid(SHIRT.group, SHIRT.kind, obj["metadata"]["name"], causes)
    return obj


REFUSED = {
    "label_placeholder": (errors.Invalid, ['metadata.labels: Invalid value: "<app-label>": a valid label must be']),
    "configmap_pod": (errors.BadRequest, ['unknown field "spec.volumeMounts"', 'unknown field "volumes"']),
    "secret_pod": (errors.BadRequest, ['unknown field "spec.env"']),
    "ingress": (errors.BadRequest, ["line 9"]),
    "crd": (errors.BadRequest, ["line 22"]),
    "custom_object": (errors.NotFound, ['no matches for kind "Shirt" in version "shirts.stable.example.com"']),
}


@pytest.mark.parametrize("name", REFUSED)
def test_as_written_the_error_names_the_line_or_the_field(name: str) -> None:
    error, texts = REFUSED[name]
    with pytest.raises(error) as caught:
        submit((MANIFESTS / "as_written" / f"{name}.yaml").read_bytes())
    for text in texts:
        assert text in caught.value.message


def test_a_custom_object_with_a_version_still_needs_a_lower_case_name() -> None:
    text = (MANIFESTS / "as_written" / "custom_object.yaml").read_text()
    text = text.replace("apiVersion: shirts.stable.example.com", "apiVersion: stable.example.com/v1")
    with pytest.raises(errors.Invalid) as caught:
        submit(text.encode())
    assert caught.value.message.startswith(
        'Shirt.stable.example.com "myShirt" is invalid: metadata.name: Invalid value'
    )


def test_a_container_without_an_image_is_named() -> None:
    text = (MANIFESTS / "corrected" / "secret_pod.yaml").read_text().replace("      image: alpine\n", "")
    with pytest.raises(errors.Invalid, match=r"spec\.containers\[0\]\.image: Required value"):
        submit(text.encode())


@pytest.mark.parametrize("path", sorted((MANIFESTS / "corrected").glob("*.yaml")), ids=lambda path: path.stem)
def test_corrected_it_is_accepted(path: Path) -> None:
    obj = submit(path.read_bytes())
    assert obj["metadata"]["name"]

"""What quotas count: claims by their class of volume attributes, devices by their class, pods by their deadline."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.api import errors
from services.apiserver.admission.quota_usage import in_scope, usage_of

CLAIMS, DEVICES = "persistentvolumeclaims", "resourceclaims.resource.k8s.io"


def quota(*names: str, operator: str = "In") -> dict[str, Any]:
    condition: dict[str, Any] = {"scopeName": "VolumeAttributesClass", "operator": operator}
    if names:
        condition["values"] = list(names)
    return {"spec": {"scopeSelector": {"matchExpressions": [condition]}}}


def claim(wanted: str = "", current: str = "", target: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"currentVolumeAttributesClassName": current} if current else {}
    if target:
        status["modifyVolumeStatus"] = {"targetVolumeAttributesClassName": target}
    return {"spec": {"volumeAttributesClassName": wanted} if wanted else {}, "status": status}


@pytest.mark.parametrize("counted", [claim("gold"), claim("silver", current="gold"), claim("silver", target="gold")])
def test_a_claim_counts_for_every_class_that_it_has_or_is_on_the_way_to(counted: dict[str, Any]) -> None:
    assert in_scope(quota("gold"), CLAIMS, counted)
    assert in_scope(quota(operator="Exists"), CLAIMS, counted)
    assert not in_scope(quota(operator="DoesNotExist"), CLAIMS, counted)
    assert not in_scope(quota("bronze"), CLAIMS, counted)


def test_a_claim_without_a_class_is_outside_of_named_ones() -> None:
    assert in_scope(quota(operator="DoesNotExist"), CLAIMS, claim())
    assert not in_scope(quota("gold"), CLAIMS, claim())
    assert not in_scope(quota("gold"), "pods", {"spec": {}})


def test_devices_are_counted_by_class_and_alternatives_by_the_most() -> None:
    requests = [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {
            "name": "b",
            "firstAvailable": [
                {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 4},
                {"name": "z", "deviceClassName": "nic", "allocationMode": "All"},
            ],
        },
    ]
    used = usage_of(DEVICES, {"spec": {"devices": {"requests": requests}}})
    assert {name: str(value) for name, value in used.items()} == {
        f"count/{DEVICES}": "1",
        "gpu.deviceclass.resource.k8s.io/devices": "6",
        "nic.deviceclass.resource.k8s.io/devices": "32",
    }


async def test_a_change_into_a_quotas_scope_is_charged_in_full(core: Any) -> None:
    spec = {"hard": {"pods": "1"}, "scopes": ["Terminating"]}
    await core.create("resourcequotas", {"metadata": {"name": "q"}, "spec": spec}, "default")
    for name in ("a", "b"):
        pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await core.create("pods", pod, "default")
    await core.patch("pods", "a", {"spec": {"activeDeadlineSeconds": 60}}, "default")
    assert (await core.get("resourcequotas", "q", "default"))["status"]["used"] == {"pods": "1"}
    with pytest.raises(errors.Forbidden, match="exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"):
        await core.patch("pods", "b", {"spec": {"activeDeadlineSeconds": 60}}, "default")
    # Within the scope, nothing more is used.
    await core.patch("pods", "a", {"spec": {"activeDeadlineSeconds": 30}}, "default")

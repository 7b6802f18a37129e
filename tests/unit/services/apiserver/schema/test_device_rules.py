"""Claims to devices, classes and taints: what is refused, with the field and in upstream's words; what stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from machinery.api import kinds
from services.apiserver.schema import defaults, intake, validate

Obj = dict[str, Any]


def judged(kind: kinds.Kind, spec: Obj) -> list[str]:
    obj = {"metadata": {"name": "x", **({"namespace": "default"} if kind.namespaced else {})}, "spec": spec}
    intake.take_in(kind, obj, "Strict")
    defaults.apply_defaults(kind, obj)
    return [f"{cause.field}: {cause.message}" for cause in validate.validate_create(kind, obj)]


def cel(expression: str) -> Obj:
    return {"cel": {"expression": expression}}


EXACT: Obj = {"deviceClassName": "gpu"}
BEARS: Obj = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
DEVICES: Obj = {
    "requests": [
        {"name": "a", "exactly": {**EXACT, "selectors": [cel('device.driver == "d"')], "tolerations": [BEARS]}},
        {"name": "b", "firstAvailable": [{"name": "x", **EXACT}, {"name": "y", **EXACT, "allocationMode": "All"}]},
    ],
    "constraints": [{"requests": ["a", "b/x"], "matchAttribute": "d.io/numa"}],
    "config": [{"requests": ["b"], "opaque": {"driver": "d.io", "parameters": {"a": 1}}}],
}

R = "spec.devices.requests"
REFUSED: list[tuple[str, Obj, str]] = [
    (
        "requests|0", {"name": "a"},
        f"{R}[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
    ),
    (
        "requests|0", {"name": "a", "exactly": EXACT, "firstAvailable": [{"name": "x", **EXACT}]},
        f"{R}[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multi",
    ),
    ("requests|1|name", "a", f'{R}[1].name: Duplicate value: "a"'),
    ("requests|0|exactly|deviceClassName", "No", f'{R}[0].exactly.deviceClassName: Invalid value: "No"'),
    ("requests|0|exactly|allocationMode", "Some", f'{R}[0].exactly.allocationMode: Unsupported value: "Some"'),
    (
        "requests|0|exactly", {**EXACT, "allocationMode": "All", "count": 2},
        f"{R}[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
    ),
    ("requests|0|exactly|count", -1, f"{R}[0].exactly.count: Invalid value: -1: must be greater than zero"),
    (
        "requests|0|exactly|selectors|0", cel("device.driver =="),
        f'{R}[0].exactly.selectors[0].cel.expression: Invalid value: "device.driver ==": compilation failed:',
    ),
    (
        "requests|0|exactly|selectors|0", cel("driver == 1"),
        f'{R}[0].exactly.selectors[0].cel.expression: Invalid value: "driver == 1": compilation failed:',
    ),
    ("requests|0|exactly|selectors|0", cel(" "), f"{R}[0].exactly.selectors[0].cel.expression: Required value"),
    (
        "requests|0|exactly|selectors|0", cel("true" + " " * 10237),
        f"{R}[0].exactly.selectors[0].cel.expression: Too long: may not be more than 10240 bytes",
    ),
    ("requests|0|exactly|tolerations|0", {**BEARS, "value": "v"}, f"{R}[0].exactly.tolerations[0].value: Invalid"),
    ("requests|0|exactly|tolerations|0", {**BEARS, "effect": "Go"}, f"{R}[0].exactly.tolerations[0].effect: Unsupp"),
    ("requests|1|firstAvailable|1|name", "x", f'{R}[1].firstAvailable[1].name: Duplicate value: "x"'),
    ("constraints|0|requests|1", "b/z", 'spec.devices.constraints[0].requests[1]: Invalid value: "b/z": must be'),
    ("constraints|0|requests|1", "c", 'spec.devices.constraints[0].requests[1]: Invalid value: "c": must be the name'),
    ("constraints|0", {"requests": ["a"]}, "spec.devices.constraints[0].matchAttribute: Required value"),
    ("constraints|0|matchAttribute", "numa", "spec.devices.constraints[0].matchAttribute: Invalid value"),
    ("config|0", {"requests": ["b"]}, "spec.devices.config[0].opaque: Required value"),
]  # fmt: skip


def test_a_good_claim_is_taken() -> None:
    assert judged(kinds.RESOURCE_CLAIM, {"devices": copy.deepcopy(DEVICES)}) == []
    assert judged(kinds.RESOURCE_CLAIM_TEMPLATE, {"spec": {"devices": copy.deepcopy(DEVICES)}}) == []


@pytest.mark.parametrize(("path", "value", "told"), REFUSED)
def test_a_claim_that_asks_for_nonsense_is_refused_and_so_is_its_template(path: str, value: Any, told: str) -> None:
    devices = copy.deepcopy(DEVICES)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("|")]
    at: Any = devices
    for step in way:
        at = at[step]
    at[last] = value
    assert any(each.startswith(told) for each in judged(kinds.RESOURCE_CLAIM, {"devices": copy.deepcopy(devices)}))
    found = judged(kinds.RESOURCE_CLAIM_TEMPLATE, {"spec": {"devices": devices}})
    assert any(each.startswith(told.replace("spec.", "spec.spec.", 1)) for each in found)


def test_what_a_claim_asks_for_stays() -> None:
    old: Obj = {"metadata": {"name": "c", "namespace": "default", "uid": "u"}, "spec": {"devices": DEVICES}}
    old = copy.deepcopy(old)
    defaults.apply_defaults(kinds.RESOURCE_CLAIM, old)
    new = copy.deepcopy(old)
    assert validate.validate_update(kinds.RESOURCE_CLAIM, new, old) == []
    new["spec"]["devices"]["requests"][0]["exactly"]["count"] = 2
    assert [c.field for c in validate.validate_update(kinds.RESOURCE_CLAIM, new, old)] == ["spec"]


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("example.com/gpu", True), ("gpu", False), ("kubernetes.io/gpu", False), ("x.kubernetes.io/gpu", False),
        ("requests.example.com/gpu", False), ("example.com/", False), ("example.com/a/b", False),
    ],
)  # fmt: skip
def test_a_class_gives_a_name_that_is_nobody_elses(name: str, good: bool) -> None:
    found = judged(kinds.DEVICE_CLASS, {"extendedResourceName": name})
    why = f'spec.extendedResourceName: Invalid value: "{name}": must be a valid extended resource name'
    assert found == ([] if good else [why])


def test_a_class_whose_selector_does_not_compile_is_refused() -> None:
    (told,) = judged(kinds.DEVICE_CLASS, {"selectors": [cel("true"), cel("device.(")]})
    assert told.startswith('spec.selectors[1].cel.expression: Invalid value: "device.(": compilation failed: ')


def test_a_selector_may_cost_no_more_than_upstreams_limit() -> None:
    attributes = "device.attributes['d.example.com']"
    modest = [
        f"device.driver == 'd.example.com' && {attributes}.model.matches('^a[0-9]+$') && 'x' in {attributes}",
        "device.capacity['d.example.com'].memory.compareTo(quantity('10Gi')) >= 0",
        f"{attributes}.version.isGreaterThan(semver('1.0.0')) || device.allowMultipleAllocations",
        "device.attributes.all(d, device.attributes[d].all(a, a != 'x'))",
    ]
    assert judged(kinds.DEVICE_CLASS, {"selectors": [cel(one) for one in modest]}) == []
    loops = "device.attributes.all(a, " * 5 + "device.driver.matches(a)" + ")" * 5
    (told,) = judged(kinds.DEVICE_CLASS, {"selectors": [cel(loops)]})
    assert told == "spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"


def test_a_rule_taints_with_an_effect_that_there_is() -> None:
    assert judged(kinds.DEVICE_TAINT_RULE, {"deviceSelector": {}, "taint": {"key": "k", "effect": "None"}}) == []
    (told,) = judged(kinds.DEVICE_TAINT_RULE, {"taint": {"key": "k", "effect": "PreferNoSchedule"}})
    assert told.startswith('spec.taint.effect: Unsupported value: "PreferNoSchedule"')
    (told,) = judged(kinds.DEVICE_TAINT_RULE, {"taint": {"key": "k k", "effect": "NoSchedule"}})
    assert told.startswith('spec.taint.key: Invalid value: "k k"')

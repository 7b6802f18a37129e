"""Devices (resource.k8s.io): claims and their templates, classes, and rules that taint.

CEL expressions are compiled here, so that who writes one learns of its fault, and not who later makes a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from machinery.api.errors import Cause
from machinery.cel.shapes import EveryName, Shape
from services.apiserver.schema import causes, names

Obj = dict[str, Any]

ITEMS_MAX = 32
"""Of requests, constraints, configurations and selectors."""
ALTERNATIVES_MAX = 8
TOLERATIONS_MAX = 16
EXPRESSION_BYTES_MAX = 10 * 1024
ATTRIBUTES_MAX = 32
"""Of attributes and capacities of a device, whatever their domains."""
ALLOCATION_MODES = ("All", "ExactCount")
EFFECTS = ("NoExecute", "NoSchedule", "None")
_REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"


def claim(obj: Obj) -> list[Cause]:
    """A ResourceClaim."""
    return _devices((obj.get("spec") or {}).get("devices") or {}, "spec.devices")


def template(obj: Obj) -> list[Cause]:
    """A ResourceClaimTemplate."""
    spec = (obj.get("spec") or {}).get("spec") or {}
    return _devices(spec.get("devices") or {}, "spec.spec.devices")


def update_spec(new: Obj, old: Obj) -> list[Cause]:
    """What a claim or a template asks for stays."""
    return [] if new.get("spec") == old.get("spec") else [causes.immutable("spec", new.get("spec"))]


def device_class(obj: Obj) -> list[Cause]:
    """A DeviceClass."""
    spec = obj.get("spec") or {}
    found = _selectors(spec.get("selectors") or (), "spec.selectors")
    found += _configurations(spec.get("config") or (), "spec.config", None)
    name = spec.get("extendedResourceName")
    if name is not None and not is_extended_resource(name):
        found.append(causes.invalid("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return found


def taint_rule(obj: Obj) -> list[Cause]:
    """A DeviceTaintRule."""
    spec = obj.get("spec") or {}
    taint = spec.get("taint") or {}
    found = _key(taint.get("key") or "", "spec.taint.key")
    found += _value(taint.get("value") or "", "spec.taint.value")
    found += _effect(taint.get("effect"), "spec.taint.effect", required=True)
    selector = spec.get("deviceSelector") or {}
    if selector.get("driver") is not None:
        at, driver = "spec.deviceSelector.driver", selector["driver"]
        found += [causes.invalid(at, driver, why) for why in names.dns_subdomain(driver)]
    if selector.get("device") is not None:
        at, device = "spec.deviceSelector.device", selector["device"]
        found += [causes.invalid(at, device, why) for why in names.dns_label(device)]
    return found


def is_extended_resource(name: str) -> bool:
    """Whether the name is one of a resource that nobody but its provider knows: with a domain that is not ours."""
    domain, slash, _ = name.partition("/")
    if not slash or domain == "kubernetes.io" or domain.endswith(".kubernetes.io") or name.startswith("requests."):
        return False
    return not names.qualified_name(f"requests.{name}")


# --- what is asked for ------------------------------------------------------------------------------------------------


def _devices(devices: Obj, path: str) -> list[Cause]:
    requests = devices.get("requests") or []
    found = _many(requests, ITEMS_MAX, f"{path}.requests", _request)
    found += _twice([request.get("name") for request in requests], f"{path}.requests", "name")
    known = {
        request.get("name"): {one.get("name") for one in request.get("firstAvailable") or ()} for request in requests
    }
    found += _many(
        devices.get("constraints") or (), ITEMS_MAX, f"{path}.constraints", lambda one, at: _constraint(one, at, known)
    )
    return found + _configurations(devices.get("config") or (), f"{path}.config", known)


def _request(request: Obj, path: str) -> list[Cause]:
    found = _label(request.get("name") or "", f"{path}.name")
    exactly, first = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not first:
        return [*found, causes.required(path, "exactly one of `exactly` or `firstAvailable` is required")]
    if exactly is not None and first:
        why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        return [*found, causes.invalid(path, None, why)]
    if exactly is not None:
        return found + _exact(exactly, f"{path}.exactly")
    at = f"{path}.firstAvailable"
    found += _many(first, ALTERNATIVES_MAX, at, lambda one, where: _label(one.get("name") or "", f"{where}.name"))
    found += _twice([one.get("name") for one in first], at, "name")
    return found + [cause for number, one in enumerate(first) for cause in _exact(one, f"{at}[{number}]")]


def _exact(exact: Obj, path: str) -> list[Cause]:
    name = exact.get("deviceClassName") or ""
    at = f"{path}.deviceClassName"
    found = [causes.invalid(at, name, why) for why in names.dns_subdomain(name)] if name else [causes.required(at)]
    found += _selectors(exact.get("selectors") or (), f"{path}.selectors")
    mode, count = exact.get("allocationMode") or "ExactCount", exact.get("count") or 0
    if mode not in ALLOCATION_MODES:
        found.append(causes.not_supported(f"{path}.allocationMode", mode, ALLOCATION_MODES))
    elif mode == "All" and count:
        found.append(causes.invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount" and count <= 0:
        found.append(causes.invalid(f"{path}.count", count, "must be greater than zero"))
    return found + _many(exact.get("tolerations") or (), TOLERATIONS_MAX, f"{path}.tolerations", _toleration)


def _constraint(constraint: Obj, path: str, known: dict[str, set[str]]) -> list[Cause]:
    found = _references(constraint.get("requests") or (), f"{path}.requests", known)
    same, distinct = constraint.get("matchAttribute"), constraint.get("distinctAttribute")
    if same is not None and distinct is not None:
        why = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [*found, causes.required(path, why)]
    if same is None and distinct is None:
        return [*found, causes.required(f"{path}.matchAttribute")]
    if "/" not in (same or distinct or ""):
        at = f"{path}.{'matchAttribute' if same is not None else 'distinctAttribute'}"
        why = "a fully qualified name must be a domain and a name separated by a slash"
        found.append(causes.invalid(at, same or distinct, why))
    return found


def _configurations(configs: Sequence[Obj], path: str, known: dict[str, set[str]] | None) -> list[Cause]:
    """`known`: the requests of the claim that they may name; None: a class, whose configuration names none."""

    def judge(config: Obj, at: str) -> list[Cause]:
        found = _references(config.get("requests") or (), f"{at}.requests", known) if known is not None else []
        opaque = config.get("opaque")
        if opaque is None:
            return [*found, causes.required(f"{at}.opaque")]
        driver = opaque.get("driver") or ""
        where = f"{at}.opaque.driver"
        why = [causes.invalid(where, driver, each) for each in names.dns_subdomain(driver)]
        found += why if driver else [causes.required(where)]
        parameters = opaque.get("parameters")
        if parameters is None:
            found.append(causes.required(f"{at}.opaque.parameters"))
        elif not isinstance(parameters, dict):
            at = f"{at}.opaque.parameters"
            found.append(causes.invalid(at, "<value omitted>", "must be a valid JSON object"))
        return found

    return _many(configs, ITEMS_MAX, path, judge)


def _references(given: Sequence[str], path: str, known: dict[str, set[str]]) -> list[Cause]:
    found = []
    for number, name in enumerate(given):
        request, slash, alternative = name.partition("/")
        if request not in known or (slash and alternative not in known[request]):
            found.append(causes.invalid(f"{path}[{number}]", name, _REFERENCE))
    return found


# --- selectors --------------------------------------------------------------------------------------------------------


_ATTRIBUTE, _CAPACITY = Shape("dyn", elements_max=64), Shape("quantity")
_DOMAIN, _IDENTIFIER = Shape("string", elements_max=63), Shape("string", elements_max=32)
_DEVICE = Shape(
    "object",
    fields={
        "driver": Shape("string", elements_max=63),
        "attributes": Shape(
            "map",
            Shape("map", _ATTRIBUTE, _IDENTIFIER, EveryName(_ATTRIBUTE), ATTRIBUTES_MAX),
            _DOMAIN,
            elements_max=ATTRIBUTES_MAX,
        ),
        "capacity": Shape(
            "map",
            Shape("map", _CAPACITY, _IDENTIFIER, elements_max=ATTRIBUTES_MAX),
            _DOMAIN,
            elements_max=ATTRIBUTES_MAX,
        ),
        "allowMultipleAllocations": Shape("bool"),
    },
)
"""What expressions know of a device, and how much of it there may be."""


def _selectors(selectors: Sequence[Obj], path: str) -> list[Cause]:
    return _many(selectors, ITEMS_MAX, path, _selector)


def _selector(selector: Obj, path: str) -> list[Cause]:
    if selector.get("cel") is None:
        return [causes.required(f"{path}.cel")]
    expression, at = selector["cel"].get("expression") or "", f"{path}.cel.expression"
    if not expression.strip():
        return [causes.required(at)]
    if len(expression.encode()) > EXPRESSION_BYTES_MAX:
        return [causes.too_long(at, EXPRESSION_BYTES_MAX)]
    from machinery import cel  # Loaded with the first expression: it takes its time.
    from machinery.cel import costs

    try:
        tree = cel.compile(expression, ("device",)).tree
    except cel.CelError as err:
        return [causes.invalid(at, expression, f"compilation failed: {err}")]
    if costs.estimate(tree, None, {"device": _DEVICE}).most > costs.PER_CALL_MAX:
        return [causes.forbidden(at, "too complex, exceeds cost limit")]
    return []


# --- taints -----------------------------------------------------------------------------------------------------------


def _toleration(toleration: Obj, path: str) -> list[Cause]:
    found = _key(toleration["key"], f"{path}.key") if toleration.get("key") else []
    operator = toleration.get("operator") or "Equal"
    if operator not in ("Equal", "Exists"):
        found.append(causes.not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    elif operator == "Exists" and toleration.get("value"):
        found.append(causes.invalid(f"{path}.value", toleration["value"], "must be empty for operator `Exists`"))
    else:
        found += _value(toleration.get("value") or "", f"{path}.value")
    return found + _effect(toleration.get("effect"), f"{path}.effect", required=False)


def _effect(effect: str | None, path: str, *, required: bool) -> list[Cause]:
    if not effect:
        return [causes.required(path)] if required else []
    return [] if effect in EFFECTS else [causes.not_supported(path, effect, EFFECTS)]


def _key(key: str, path: str) -> list[Cause]:
    return [causes.invalid(path, key, why) for why in names.qualified_name(key)]


def _value(value: str, path: str) -> list[Cause]:
    return [causes.invalid(path, value, why) for why in names.label_value(value)] if value else []


def _label(name: str, path: str) -> list[Cause]:
    if not name:
        return [causes.required(path)]
    return [causes.invalid(path, name, why) for why in names.dns_label(name)]


# --- lists ------------------------------------------------------------------------------------------------------------


def _many(items: Sequence[Any], most: int, path: str, judge: Callable[[Any, str], list[Cause]]) -> list[Cause]:
    if len(items) > most:
        return [causes.too_many(path, len(items), most)]
    return [cause for number, item in enumerate(items) for cause in judge(item, f"{path}[{number}]")]


def _twice(keys: Sequence[Any], path: str, field: str) -> list[Cause]:
    seen: set[Any] = set()
    found = []
    for number, key in enumerate(keys):
        if key in seen:
            found.append(causes.duplicate(f"{path}[{number}].{field}", key))
        seen.add(key)
    return found

"""ConfigMaps, Secrets, Namespaces, quotas, limit ranges, nodes, events, leases."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import itertools
import json
from typing import Any

from machinery.api.errors import Cause
from machinery.api.quantity import parse_quantity
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import selectors

Obj = dict[str, Any]

BYTES_MAX = 1024 * 1024


def config_map(obj: Obj) -> list[Cause]:
    """A ConfigMap: its keys are file names; text and bytes share them; one MiB in all."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    found: list[Cause] = []
    size = 0
    for field, values in (("data", data), ("binaryData", binary)):
        for key, value in values.items():
            found += [causes.invalid(causes.at_key(field, key), key, why) for why in names.config_key(key)]
            if field == "data":
                size += len(value) if value.isascii() else len(value.encode())
                if key in binary:
                    found.append(
                        causes.invalid(causes.at_key("data", key), key, "duplicate of key present in binaryData")
                    )
            else:
                size += len(value) * 3 // 4
    if size > BYTES_MAX:
        found.append(causes.too_long("", BYTES_MAX))
    return found


def update_config_map(new: Obj, old: Obj) -> list[Cause]:
    """A ConfigMap that is immutable stays so, with its data."""
    found = config_map(new)
    if old.get("immutable"):
        if not new.get("immutable"):
            found.append(causes.forbidden("immutable", "field is immutable when `immutable` is set"))
        for field in ("data", "binaryData"):
            if (new.get(field) or {}) != (old.get(field) or {}):
                found.append(causes.forbidden(field, "field is immutable when `immutable` is set"))
    return found


_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def secret(obj: Obj) -> list[Cause]:
    """A Secret: keys, size, and what its type demands."""
    data = obj.get("data") or {}
    found: list[Cause] = []
    for key in data:
        found += [causes.invalid(causes.at_key("data", key), key, why) for why in names.config_key(key)]
    if sum(len(value) * 3 // 4 for value in data.values()) > BYTES_MAX + 3:
        found.append(causes.too_long("data", BYTES_MAX))
    kind = obj.get("type") or ""
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            found.append(causes.required(causes.at_key("data", key)))
    if kind in ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson") and not found:
        key = _SECRET_KEYS[kind][0]
        try:
            json.loads(base64.b64decode(data[key]))
        except (ValueError, binascii.Error):
            detail = "invalid character in JSON"
            found.append(causes.invalid(causes.at_key("data", key), "<secret contents redacted>", detail))
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            found.append(causes.required("metadata.annotations[kubernetes.io/service-account.name]"))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        found.append(causes.required("data[username]"))
        found.append(causes.required("data[password]"))
    return found


def update_secret(new: Obj, old: Obj) -> list[Cause]:
    """A Secret keeps its type; an immutable one its data."""
    found = secret(new)
    if new.get("type") != old.get("type"):
        found.append(causes.immutable("type", new.get("type", "")))
    if old.get("immutable"):
        if not new.get("immutable"):
            found.append(causes.forbidden("immutable", "field is immutable when `immutable` is set"))
        if (new.get("data") or {}) != (old.get("data") or {}):
            found.append(causes.forbidden("data", "field is immutable when `immutable` is set"))
    return found


def namespace(obj: Obj) -> list[Cause]:
    """A Namespace: its finalizers."""
    found: list[Cause] = []
    for index, finalizer in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
        here = f"spec.finalizers[{index}]"
        found += [causes.invalid(here, finalizer, why) for why in names.qualified_name(finalizer)]
        if "/" not in finalizer and finalizer != "kubernetes":
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(causes.invalid(here, finalizer, detail))
    return found


_QUOTA_STANDARD = frozenset(
    {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "services",
        "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers",
        "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip


def resource_quota(obj: Obj) -> list[Cause]:
    """A ResourceQuota: names that can be counted, amounts that aren't negative."""
    found: list[Cause] = []
    for name, amount in ((obj.get("spec") or {}).get("hard") or {}).items():
        here = causes.at_key("spec.hard", name)
        if name not in _QUOTA_STANDARD:
            found += [causes.invalid(here, name, why) for why in names.qualified_name(name)]
            if "/" not in name and not name.startswith(("requests.hugepages-", "hugepages-")):
                found.append(causes.invalid(here, name, "must be a standard resource type or fully qualified"))
        if amount.startswith("-"):
            found.append(causes.invalid(here, amount, "must be greater than or equal to 0"))
    return found


def update_resource_quota(new: Obj, old: Obj) -> list[Cause]:
    """A ResourceQuota keeps its scopes."""
    scopes = set((new.get("spec") or {}).get("scopes") or ())
    if scopes != set((old.get("spec") or {}).get("scopes") or ()):
        return [causes.immutable("spec.scopes", sorted(scopes))]
    return []


def limit_range(obj: Obj) -> list[Cause]:
    """A LimitRange: per resource min ≤ defaultRequest ≤ default ≤ max."""
    found: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        here = f"spec.limits[{index}]"
        kind = item.get("type") or ""
        if kind in seen:
            found.append(causes.duplicate(f"{here}.type", kind))
        seen.add(kind)
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if item.get(field):
                    detail = "may not be specified when `type` is 'Pod'"
                    found.append(causes.forbidden(f"{here}.{field}", detail))
        order = ("min", "defaultRequest", "default", "max")
        for name in {key for field in order for key in item.get(field) or ()}:
            given = [(field, item[field][name]) for field in order if name in (item.get(field) or {})]
            for (low, small), (high, large) in itertools.pairwise(given):
                if parse_quantity(small) > parse_quantity(large):
                    detail = f"{low} value {small} is greater than {high} value {large}"
                    found.append(causes.invalid(causes.at_key(f"{here}.{low}", name), small, detail))
    return found


def node(obj: Obj) -> list[Cause]:
    """A Node: taints and pod ranges."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        here = f"spec.taints[{index}]"
        key = (taint.get("key") or "", taint.get("effect") or "")
        if key in seen:
            found.append(causes.duplicate(here, taint))
        seen.add(key)
        value = taint.get("value") or ""
        found += [causes.invalid(f"{here}.value", value, why) for why in names.label_value(value)]
    for index, block in enumerate(spec.get("podCIDRs") or ()):
        try:
            ipaddress.ip_network(block)
        except ValueError:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            found.append(causes.invalid(f"spec.podCIDRs[{index}]", block, detail))
    return found


def update_node(new: Obj, old: Obj) -> list[Cause]:
    """A Node: its pod ranges and provider are set once."""
    found = node(new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if before.get("podCIDRs") and spec.get("podCIDRs") != before["podCIDRs"]:
        found.append(causes.forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'))
    if before.get("providerID") and spec.get("providerID") != before["providerID"]:
        found.append(
            causes.forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid')
        )
    return found


def event(obj: Obj) -> list[Cause]:
    """A core Event lives in the namespace of what it is about."""
    namespace_here = (obj.get("metadata") or {}).get("namespace") or ""
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    if (about and about != namespace_here) or (not about and namespace_here not in ("", "default", "kube-system")):
        return [causes.invalid("involvedObject.namespace", about, "does not match event.namespace")]
    return []


def new_event(obj: Obj) -> list[Cause]:
    """An Event of events.k8s.io: who reports what must be said."""
    found: list[Cause] = []
    if obj.get("eventTime") is None:
        found.append(causes.required("eventTime"))
    for field in ("reportingController", "reportingInstance", "action", "reason"):
        if not obj.get(field):
            found.append(causes.required(field))
    if obj.get("type") not in ("Normal", "Warning"):
        found.append(causes.invalid("type", obj.get("type", ""), "has invalid value: " + str(obj.get("type", ""))))
    return found


def priority_class(obj: Obj) -> list[Cause]:
    """A PriorityClass: system names and the highest values are reserved."""
    name = (obj.get("metadata") or {}).get("name") or ""
    value = obj.get("value") or 0
    found: list[Cause] = []
    reserved = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
    if name.startswith("system-"):
        if reserved.get(name) != value:
            detail = "priority class names with 'system-' prefix are reserved for system use only. error: " + (
                f"value of system PriorityClass {name} must be {reserved[name]}"
                if name in reserved
                else f"{name} is not a known system priority class"
            )
            found.append(causes.forbidden("metadata.name", detail))
    elif value > 1_000_000_000:
        detail = "maximum allowed value of a user defined priority is 1000000000"
        found.append(causes.forbidden("value", detail))
    return found


def update_priority_class(new: Obj, old: Obj) -> list[Cause]:
    """A PriorityClass keeps its value."""
    found: list[Cause] = []
    if new.get("value") != old.get("value"):
        found.append(causes.forbidden("value", "may not be changed in an update."))
    if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
        found.append(causes.immutable("preemptionPolicy", new.get("preemptionPolicy")))
    return found


def disruption_budget(obj: Obj) -> list[Cause]:
    """A PodDisruptionBudget: one of the two bounds."""
    from services.apiserver.schema.rules.workloads import amount

    spec = obj.get("spec") or {}
    found: list[Cause] = []
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    if low is not None and high is not None:
        detail = "minAvailable and maxUnavailable cannot be both set"
        found.append(causes.invalid("spec", spec, detail))
    for field, value in (("minAvailable", low), ("maxUnavailable", high)):
        if value is not None:
            found += amount(value, f"spec.{field}")
    return found + selectors.label_selector(spec.get("selector"), "spec.selector")

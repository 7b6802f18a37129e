"""The core group's nodes, namespaces, events, service accounts, quotas."""

from __future__ import annotations

from services.apiserver.rest.columns.formats import NONE, UNKNOWN, age, created, or_none
from services.apiserver.rest.columns.layout import Cells, Columns, Object

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def _node(obj: Object) -> Cells:
    spec, status, meta = obj.get("spec") or {}, obj.get("status") or {}, obj["metadata"]
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = meta.get("labels") or {}
    roles = {label[len(_ROLE_PREFIX) :] for label in labels if label.startswith(_ROLE_PREFIX)} - {""}
    if labels.get(_ROLE_LABEL):
        roles.add(labels[_ROLE_LABEL])
    addresses: dict[str, str] = {}
    for item in status.get("addresses") or ():
        addresses.setdefault(item.get("type"), item.get("address"))
    info = status.get("nodeInfo") or {}
    architecture = f" ({info['architecture']})" if info.get("architecture") else ""
    return [
        meta["name"],
        state,
        ",".join(sorted(roles)) or NONE,
        created(obj),
        info.get("kubeletVersion", ""),
        or_none(addresses.get("InternalIP")),
        or_none(addresses.get("ExternalIP")),
        info.get("osImage") or UNKNOWN,
        (info.get("kernelVersion") or UNKNOWN) + architecture,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _namespace(obj: Object) -> Cells:
    return [obj["metadata"]["name"], (obj.get("status") or {}).get("phase", ""), created(obj)]


def _service_account(obj: Object) -> Cells:
    return [obj["metadata"]["name"], created(obj)]


def _quota(obj: Object) -> Cells:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        text = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(text)
    return [obj["metadata"]["name"], ", ".join(requests), ", ".join(limits), created(obj)]


def _limit_range(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _component_status(obj: Object) -> Cells:
    status, message, error = "Unknown", "", ""
    for condition in obj.get("conditions") or ():
        if condition.get("type") == "Healthy":
            status = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            message, error = condition.get("message", ""), condition.get("error", "")
            break
    return [obj["metadata"]["name"], status, message, error]


def _event_times(obj: Object) -> tuple[str, str]:
    """When first and last seen; series and both groups' fields are taken into account."""
    first = age(obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime"))
    if (series := obj.get("series")) is not None:
        return first, age(series.get("lastObservedTime"))
    last_time = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    return first, age(last_time) if last_time else first


def _event_count(obj: Object) -> int:
    if (series := obj.get("series")) is not None:
        return int(series.get("count") or 0)
    # Events of the newer group that happened once have no count.
    return obj.get("count") or obj.get("deprecatedCount") or 1


def _event(obj: Object) -> Cells:
    subject = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    instance = source.get("host") or obj.get("reportingInstance")
    first, last = _event_times(obj)
    kind, name = subject.get("kind", "").lower(), subject.get("name")
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        subject.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        str(obj.get("message") or obj.get("note") or "").strip(),
        first,
        _event_count(obj),
        obj["metadata"]["name"],
    ]


_EVENT = "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*"

TABLES = {
    "nodes": Columns(
        "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*",
        _node,
    ),
    "namespaces": Columns("Name, Status, Age", _namespace),
    "serviceaccounts": Columns("Name, Age", _service_account),
    "resourcequotas": Columns("Name, Request, Limit, Age", _quota),
    "limitranges": Columns("Name, Created At", _limit_range),
    "componentstatuses": Columns("Name, Status, Message, Error", _component_status),
    "events": Columns(_EVENT, _event),
    "events.events.k8s.io": Columns(_EVENT, _event),
}

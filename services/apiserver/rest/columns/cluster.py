"""What administrators look at: admission, priorities, runtime classes, flow control, aggregated APIs."""

from __future__ import annotations

from machinery.api import selectors
from services.apiserver.rest.columns.formats import UNSET, created
from services.apiserver.rest.columns.layout import Cells, Columns, Object


def _webhooks(obj: Object) -> Cells:
    return [obj["metadata"]["name"], len(obj.get("webhooks") or ()), created(obj)]


def _param_kind(spec: Object) -> str:
    kind = spec.get("paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _validating_policy(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    return [obj["metadata"]["name"], len(spec.get("validations") or ()), _param_kind(spec), created(obj)]


def _mutating_policy(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    return [obj["metadata"]["name"], len(spec.get("mutations") or ()), _param_kind(spec), created(obj)]


def _policy_binding(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    ref = spec.get("paramRef")
    shown = UNSET
    if ref and ref.get("name"):
        shown = f"{ref.get('namespace') or '*'}/{ref['name']}"
    elif ref and ref.get("selector") is not None:
        shown = selectors.go_text(ref["selector"])
    return [obj["metadata"]["name"], spec.get("policyName", ""), shown, created(obj)]


def _priority_class(obj: Object) -> Cells:
    return [
        obj["metadata"]["name"],
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        created(obj),
        obj.get("preemptionPolicy", "PreemptLowerPriority"),
    ]


def _runtime_class(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj.get("handler", ""), created(obj)]


def _flow_schema(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    missing = "?"
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Dangling":
            missing = condition.get("status", "?")
    return [
        obj["metadata"]["name"],
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        (spec.get("distinguisherMethod") or {}).get("type") or "<none>",
        created(obj),
        missing,
    ]


def _priority_level(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    none = "<none>"
    return [
        obj["metadata"]["name"],
        spec.get("type", ""),
        limited.get("nominalConcurrencyShares", none),
        queuing.get("queues", none),
        queuing.get("handSize", none),
        queuing.get("queueLengthLimit", none),
        created(obj),
    ]


def _api_service(obj: Object) -> Cells:
    service = (obj.get("spec") or {}).get("service")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    available = "Unknown"
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Available":
            available = condition.get("status", "Unknown")
            if available != "True":
                available += f" ({condition.get('reason', '')})"
    return [obj["metadata"]["name"], where, available, created(obj)]


_ADMISSION = "admissionregistration.k8s.io"
_POLICY_BINDING = Columns("Name, PolicyName, ParamRef, Age", _policy_binding)

TABLES = {
    f"validatingwebhookconfigurations.{_ADMISSION}": Columns("Name, Webhooks:integer, Age", _webhooks),
    f"mutatingwebhookconfigurations.{_ADMISSION}": Columns("Name, Webhooks:integer, Age", _webhooks),
    f"validatingadmissionpolicies.{_ADMISSION}": Columns(
        "Name, Validations:integer, ParamKind, Age", _validating_policy
    ),
    f"mutatingadmissionpolicies.{_ADMISSION}": Columns("Name, Mutations:integer, ParamKind, Age", _mutating_policy),
    f"validatingadmissionpolicybindings.{_ADMISSION}": _POLICY_BINDING,
    f"mutatingadmissionpolicybindings.{_ADMISSION}": _POLICY_BINDING,
    "priorityclasses.scheduling.k8s.io": Columns(
        "Name, Value:integer, Global-Default:boolean, Age, PreemptionPolicy", _priority_class
    ),
    "runtimeclasses.node.k8s.io": Columns("Name, Handler, Age", _runtime_class),
    "flowschemas.flowcontrol.apiserver.k8s.io": Columns(
        "Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL", _flow_schema
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": Columns(
        "Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age", _priority_level
    ),
    "apiservices.apiregistration.k8s.io": Columns("Name, Service, Available, Age", _api_service),
}

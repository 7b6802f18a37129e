"""The FlowSchemas and PriorityLevelConfigurations that every cluster has, with upstream's names and numbers
(k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap): clients and dashboards know them.
"""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]

API_VERSION = "flowcontrol.apiserver.k8s.io/v1"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
"""An object with this annotation "true" follows this file; somebody who wants to keep a change sets it to "false"."""
EXEMPT = "exempt"
CATCH_ALL = "catch-all"
MANDATORY = frozenset({EXEMPT, CATCH_ALL})
"""Names, of both kinds, whose spec is always as it is here."""

_QUEUE_LENGTH = 50
# name: (shares, lendable percent, queues, hand size)
_QUEUED = {
    "system": (30, 33, 64, 6),
    "node-high": (40, 25, 64, 6),
    "leader-election": (10, 0, 16, 4),
    "workload-high": (40, 50, 128, 6),
    "workload-low": (100, 90, 128, 6),
    "global-default": (20, 50, 128, 6),
}
_LEASES = "coordination.k8s.io"
_MANAGER, _SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"


def levels() -> list[Obj]:
    """Every PriorityLevelConfiguration."""
    exempt = {"nominalConcurrencyShares": 0, "lendablePercent": 0}
    reject = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    specs: dict[str, Obj] = {
        EXEMPT: {"type": "Exempt", "exempt": exempt},
        CATCH_ALL: {"type": "Limited", "limited": reject},
    }
    for name, (shares, lendable, queues, hand) in _QUEUED.items():
        queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": _QUEUE_LENGTH}
        response = {"type": "Queue", "queuing": queuing}
        limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        specs[name] = {"type": "Limited", "limited": limited}
    return [_object("PriorityLevelConfiguration", name, spec) for name, spec in specs.items()]


def schemas() -> list[Obj]:
    """Every FlowSchema."""
    everybody = _groups("system:unauthenticated", "system:authenticated")
    nodes = _groups("system:nodes")
    kube_system = [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}]
    everything: Obj = {"resourceRules": [_resources()], "nonResourceRules": [_paths("*", "*")]}
    own_leases = {"resourceRules": [_resources(["get", "create", "update"], _LEASES, ["leases"], cluster=False)]}
    node_health = {
        "resourceRules": [
            _resources(["*"], "", ["nodes", "nodes/status"]),
            _resources(["*"], _LEASES, ["leases"], cluster=False),
        ]
    }
    probes = {"nonResourceRules": [_paths("get", "/healthz", "/readyz", "/livez")]}
    # name, level, precedence, what tells flows apart, subjects, rules
    table: list[tuple[str, str, int, str, list[Obj], Obj]] = [
        (EXEMPT, EXEMPT, 1, "", _groups("system:masters"), everything),
        (CATCH_ALL, CATCH_ALL, 10000, "ByUser", everybody, everything),
        ("system-nodes", "system", 500, "ByUser", nodes, everything),
        ("system-node-high", "node-high", 400, "ByUser", nodes, node_health),
        ("probes", EXEMPT, 2, "", everybody, probes),
        (
            "system-leader-election", "leader-election", 100, "ByUser",
            [*_users(_MANAGER, _SCHEDULER), *kube_system], own_leases,
        ),
        ("kube-controller-manager", "workload-high", 800, "ByNamespace", _users(_MANAGER), everything),
        ("kube-scheduler", "workload-high", 800, "ByNamespace", _users(_SCHEDULER), everything),
        ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", kube_system, everything),
        ("service-accounts", "workload-low", 9000, "ByUser", _groups("system:serviceaccounts"), everything),
        ("global-default", "global-default", 9900, "ByUser", everybody, everything),
    ]  # fmt: skip
    return [
        _object("FlowSchema", name, _schema(level, precedence, method, subjects, rules))
        for name, level, precedence, method, subjects, rules in table
    ]


def objects() -> list[Obj]:
    """All of them, levels before the schemas that name them."""
    return [*levels(), *schemas()]


def _object(kind: str, name: str, spec: Obj) -> Obj:
    metadata = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _schema(level: str, precedence: int, method: str, subjects: list[Obj], rules: Obj) -> Obj:
    spec: Obj = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects, **rules}],
    }
    if method:
        spec["distinguisherMethod"] = {"type": method}
    return spec


def _groups(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _resources(
    verbs: list[str] | None = None, group: str = "*", resources: list[str] | None = None, *, cluster: bool = True
) -> Obj:
    rule: Obj = {"verbs": verbs or ["*"], "apiGroups": [group], "resources": resources or ["*"], "namespaces": ["*"]}
    if cluster:
        rule["clusterScope"] = True
    return rule


def _paths(verb: str, *paths: str) -> Obj:
    return {"verbs": [verb], "nonResourceURLs": list(paths)}

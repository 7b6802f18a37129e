# ruff: noqa: E501 (a row of the tables is one rule)
"""The roles and bindings that every new cluster has: upstream's names and rights, as a table.

A line of `_CLUSTER_ROLES` is `verbs | groups | resources [| names]`, or `verbs | URLs` for paths; `core` is the core
group; READ, WRITE and ALL stand for the usual verbs. `cluster_roles()` and its sisters turn the table into objects,
ready to be created.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from services.apiserver.auth.bootstrap_controllers import CONTROLLER_ROLES

RBAC_API = "rbac.authorization.k8s.io/v1"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"

_ABBREVIATIONS = {
    "READ": "get,list,watch",
    "WRITE": "create,delete,deletecollection,patch,update",
    "ALL": "create,delete,deletecollection,get,list,patch,update,watch",
}

_CLUSTER_ROLES: dict[str, str] = {
    "cluster-admin": """
        * | * | *
        * | *
        """,
    "system:aggregate-to-admin": """
        create | authorization.k8s.io | localsubjectaccessreviews
        ALL | rbac.authorization.k8s.io | rolebindings,roles
        """,
    "system:aggregate-to-edit": """
        READ | core | pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy
        impersonate | core | serviceaccounts
        WRITE | core | pods,pods/attach,pods/exec,pods/portforward,pods/proxy
        create | core | pods/eviction
        WRITE | core | configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy
        create | core | serviceaccounts/token
        WRITE | apps | daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale
        WRITE | events.k8s.io | events
        WRITE | extensions | daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale
        WRITE | scheduling.k8s.io | podgroups,workloads
        WRITE | autoscaling | horizontalpodautoscalers
        WRITE | batch | cronjobs,jobs
        WRITE | policy | poddisruptionbudgets
        WRITE | networking.k8s.io | ingresses,networkpolicies
        ALL | coordination.k8s.io | leases
        WRITE | resource.k8s.io | resourceclaims,resourceclaimtemplates
        """,
    "system:aggregate-to-view": """
        READ | core | configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
        READ | core | bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status
        READ | core | namespaces
        READ | events.k8s.io | events
        READ | extensions | daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale
        READ | scheduling.k8s.io | podgroups,podgroups/status,workloads
        READ | discovery.k8s.io | endpointslices
        READ | apps | controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status
        READ | autoscaling | horizontalpodautoscalers,horizontalpodautoscalers/status
        READ | batch | cronjobs,cronjobs/status,jobs,jobs/status
        READ | policy | poddisruptionbudgets,poddisruptionbudgets/status
        READ | networking.k8s.io | ingresses,ingresses/status,networkpolicies
        READ | resource.k8s.io | resourceclaims,resourceclaims/status,resourceclaimtemplates
        """,
    "system:aggregated-metrics-reader": """
        READ | metrics.k8s.io | pods,nodes
        """,
    "system:auth-delegator": """
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
        """,
    "system:basic-user": """
        create | authorization.k8s.io | selfsubjectaccessreviews,selfsubjectrulesreviews
        create | authentication.k8s.io | selfsubjectreviews
        """,
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": """
        create | certificates.k8s.io | certificatesigningrequests/nodeclient
        """,
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": """
        create | certificates.k8s.io | certificatesigningrequests/selfnodeclient
        """,
    "system:certificates.k8s.io:kube-apiserver-client-approver": """
        approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client
        """,
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": """
        approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client-kubelet
        """,
    "system:certificates.k8s.io:kubelet-serving-approver": """
        approve | certificates.k8s.io | signers | kubernetes.io/kubelet-serving
        """,
    "system:certificates.k8s.io:legacy-unknown-approver": """
        approve | certificates.k8s.io | signers | kubernetes.io/legacy-unknown
        """,
    "system:cluster-trust-bundle-discovery": """
        READ | certificates.k8s.io | clustertrustbundles
        """,
    "system:coredns": """
        list,watch | core | endpoints,services,pods,namespaces
        get | core | nodes
        list,watch | discovery.k8s.io | endpointslices
        """,
    "system:discovery": """
        get | /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/
        """,
    "system:heapster": """
        READ | core | events,namespaces,nodes,pods
        READ | extensions | deployments
        """,
    "system:kube-aggregator": """
        READ | core | endpoints,services
        """,
    "system:kube-controller-manager": """
        create,patch,update | core,events.k8s.io | events
        create | coordination.k8s.io | leases
        get,update,patch | coordination.k8s.io | leases | kube-controller-manager
        create | core | secrets,serviceaccounts
        delete | core | secrets
        get | core | configmaps,namespaces,secrets,serviceaccounts
        update | core | secrets,serviceaccounts
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
        list,watch | * | *
        create | core | serviceaccounts/token
        get | core | nodes/stats
        approve | certificates.k8s.io | signers | kubernetes.io/kubelet-serving
        """,
    "system:kube-dns": """
        list,watch | core | endpoints,services
        """,
    "system:kube-scheduler": """
        create,patch,update | core,events.k8s.io | events
        create | coordination.k8s.io | leases
        get,list,watch,update,patch | coordination.k8s.io | leases | kube-scheduler
        ALL | coordination.k8s.io | leasecandidates
        READ | core | nodes
        delete,get,list,watch | core | pods
        create | core | bindings,pods/binding
        patch,update | core | pods/status
        READ | core | replicationcontrollers,services
        READ | apps,extensions | replicasets
        READ | apps | statefulsets
        update | core | pods/finalizers
        READ | policy | poddisruptionbudgets
        READ | core | persistentvolumeclaims,persistentvolumes
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
        READ | storage.k8s.io | csinodes
        READ | core | namespaces
        READ | storage.k8s.io | csidrivers
        READ | storage.k8s.io | csistoragecapacities
        READ | storage.k8s.io | volumeattachments
        READ | resource.k8s.io | deviceclasses,resourceslices,devicetaintrules
        READ | resource.k8s.io | resourceclaims,resourceclaims/status
        patch,update | resource.k8s.io | resourceclaims,resourceclaims/status,resourceclaims/binding
        create,delete | resource.k8s.io | resourceclaims
        READ | scheduling.k8s.io | podgroups,workloads
        patch,update | scheduling.k8s.io | podgroups/status
        READ | scheduling.k8s.io | priorityclasses
        """,
    "system:kubelet-api-admin": """
        READ | core | nodes
        proxy | core | nodes
        * | core | nodes/log,nodes/metrics,nodes/proxy,nodes/stats,nodes/pods,nodes/healthz,nodes/configz
        """,
    "system:monitoring": """
        get | core | nodes/metrics
        get | /flagz,/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*,/statusz
        """,
    "system:node": """
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | localsubjectaccessreviews,subjectaccessreviews
        READ | core | services
        create,get,list,watch | core | nodes
        patch,update | core | nodes/status
        patch,update | core | nodes
        create,patch,update | core,events.k8s.io | events
        READ | core | pods
        create,delete | core | pods
        patch,update | core | pods/status
        create | core | pods/eviction
        READ | core | configmaps,secrets
        get | core | persistentvolumeclaims,persistentvolumes
        get | core | endpoints
        create,get,list,watch | certificates.k8s.io | certificatesigningrequests
        create,delete,get,patch,update | coordination.k8s.io | leases
        get | storage.k8s.io | volumeattachments
        create | core | serviceaccounts/token
        get | core | serviceaccounts
        create,get,list,watch | certificates.k8s.io | podcertificaterequests
        get,patch,update | core | persistentvolumeclaims/status
        READ | storage.k8s.io | csidrivers
        create,delete,get,patch,update | storage.k8s.io | csinodes
        READ | node.k8s.io | runtimeclasses
        get | resource.k8s.io | resourceclaims
        deletecollection | resource.k8s.io | resourceslices
        READ | certificates.k8s.io | clustertrustbundles
        """,
    "system:node-bootstrapper": """
        create,get,list,watch | certificates.k8s.io | certificatesigningrequests
        """,
    "system:node-problem-detector": """
        get | core | nodes
        patch | core | nodes/status
        create,patch,update | core,events.k8s.io | events
        """,
    "system:node-proxier": """
        list,watch | core | endpoints,services
        READ | core | nodes
        create,patch,update | core,events.k8s.io | events
        list,watch | discovery.k8s.io | endpointslices
        list,watch | networking.k8s.io | servicecidrs
        """,
    "system:persistent-volume-provisioner": """
        create,delete,get,list,watch | core | persistentvolumes
        get,list,update,watch | core | persistentvolumeclaims
        READ | storage.k8s.io | storageclasses
        watch | core | events
        create,patch,update | core,events.k8s.io | events
        """,
    "system:public-info-viewer": """
        get | /healthz,/livez,/readyz,/version,/version/
        """,
    "system:service-account-issuer-discovery": """
        get | /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/
        """,
    "system:volume-scheduler": """
        get,list,patch,update,watch | core | persistentvolumes
        READ | storage.k8s.io | storageclasses
        get,list,patch,update,watch | core | persistentvolumeclaims
        """,
    # Cutaway's own: what the node agents beyond kube-proxy need. The proxy also enforces NetworkPolicy.
    "cutaway:node-network": """
        READ | core | pods,namespaces,nodes
        READ | networking.k8s.io | networkpolicies
        """,
    "cutaway:ingress": """
        READ | core | services,endpoints,secrets,nodes,namespaces,configmaps
        READ | discovery.k8s.io | endpointslices
        READ | networking.k8s.io | ingresses,ingressclasses
        patch,update | networking.k8s.io | ingresses/status
        create,patch,update | core,events.k8s.io | events
        ALL | coordination.k8s.io | leases
        """,
}

# Roles that gather others by label, and the labels that let a role be gathered.
_AGGREGATED = {"admin": "admin", "edit": "edit", "view": "view"}
_GATHERED_INTO = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
    "system:aggregated-metrics-reader": "view",
}

_CLUSTER_BINDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "cluster-admin": (("Group", "system:masters"),),
    "system:monitoring": (("Group", "system:monitoring"),),
    "system:discovery": (("Group", "system:authenticated"),),
    "system:basic-user": (("Group", "system:authenticated"),),
    "system:public-info-viewer": (("Group", "system:authenticated"), ("Group", "system:unauthenticated")),
    "system:service-account-issuer-discovery": (("Group", "system:serviceaccounts"),),
    "system:cluster-trust-bundle-discovery": (("Group", "system:serviceaccounts"),),
    "system:node-proxier": (("User", "system:kube-proxy"),),
    "system:kube-controller-manager": (("User", "system:kube-controller-manager"),),
    "system:kube-scheduler": (("User", "system:kube-scheduler"),),
    "system:volume-scheduler": (("User", "system:kube-scheduler"),),
    "system:kube-dns": (("ServiceAccount", "kube-system/kube-dns"),),
    # The Node authorizer judges kubelets; this binding exists, empty, as upstream's does.
    "system:node": (),
    "system:coredns": (("ServiceAccount", "kube-system/coredns"), ("User", "system:dns")),
    "cutaway:node-network": (("User", "system:kube-proxy"),),
    "cutaway:ingress": (("User", "system:ingress"),),
}

# (namespace, name) -> rules and subjects
_ROLES: dict[tuple[str, str], str] = {
    ("kube-public", "system:controller:bootstrap-signer"): """
        READ | core | configmaps
        patch,update | core | configmaps | cluster-info
        create,patch,update | core,events.k8s.io | events
        """,
    ("kube-system", "extension-apiserver-authentication-reader"): """
        READ | core | configmaps | extension-apiserver-authentication
        """,
    ("kube-system", "system:controller:bootstrap-signer"): "READ | core | secrets",
    ("kube-system", "system:controller:cloud-provider"): "create,get,list,watch | core | configmaps",
    ("kube-system", "system:controller:token-cleaner"): """
        delete,get,list,watch | core | secrets
        create,patch,update | core,events.k8s.io | events
        """,
    ("kube-system", "system::leader-locking-kube-controller-manager"): """
        watch | core | configmaps
        get,update | core | configmaps | kube-controller-manager
        create,get,list,update,watch | coordination.k8s.io | leasecandidates,leases
        """,
    ("kube-system", "system::leader-locking-kube-scheduler"): """
        watch | core | configmaps
        get,update | core | configmaps | kube-scheduler
        create,get,list,update,watch | coordination.k8s.io | leasecandidates,leases
        """,
}

_ROLE_BINDINGS: dict[tuple[str, str], tuple[str, tuple[tuple[str, str], ...]]] = {
    ("kube-public", "system:controller:bootstrap-signer"): (
        "system:controller:bootstrap-signer",
        (("ServiceAccount", "kube-system/bootstrap-signer"), ("User", "system:kube-controller-manager")),
    ),
    ("kube-system", "system:controller:bootstrap-signer"): (
        "system:controller:bootstrap-signer",
        (("ServiceAccount", "kube-system/bootstrap-signer"), ("User", "system:kube-controller-manager")),
    ),
    ("kube-system", "system:controller:cloud-provider"): (
        "system:controller:cloud-provider",
        (("ServiceAccount", "kube-system/cloud-provider"),),
    ),
    ("kube-system", "system:controller:token-cleaner"): (
        "system:controller:token-cleaner",
        (("ServiceAccount", "kube-system/token-cleaner"),),
    ),
    ("kube-system", "system::extension-apiserver-authentication-reader"): (
        "extension-apiserver-authentication-reader",
        (("User", "system:kube-controller-manager"), ("User", "system:kube-scheduler")),
    ),
    ("kube-system", "system::leader-locking-kube-controller-manager"): (
        "system::leader-locking-kube-controller-manager",
        (("User", "system:kube-controller-manager"), ("ServiceAccount", "kube-system/kube-controller-manager")),
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        "system::leader-locking-kube-scheduler",
        (("User", "system:kube-scheduler"), ("ServiceAccount", "kube-system/kube-scheduler")),
    ),
}


def _list(text: str) -> list[str]:
    return [word.strip() for word in _ABBREVIATIONS.get(text, text).split(",")]


def _rules(table: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, table.splitlines())):
        verbs, *rest = [part.strip() for part in line.split("|")]
        if len(rest) == 1:
            rules.append({"nonResourceURLs": _list(rest[0]), "verbs": _list(verbs)})
            continue
        groups = ["" if group == "core" else group for group in _list(rest[0])]
        rule: dict[str, Any] = {"apiGroups": groups, "resources": _list(rest[1]), "verbs": _list(verbs)}
        if len(rest) == 3:
            rule["resourceNames"] = _list(rest[2])
        rules.append(rule)
    return rules


def _object(kind: str, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": RBAC_API, "kind": kind, "metadata": meta, **fields}


@cache
def _gathered(target: str) -> tuple[str, ...]:
    """The names of all roles whose rules end up in the aggregated role `target`."""
    names: list[str] = []
    for name, into in _GATHERED_INTO.items():
        if into == target:
            names += [name] if name in _CLUSTER_ROLES else _gathered(name)
    return tuple(names)


def cluster_roles() -> list[dict[str, Any]]:
    """Every default ClusterRole. The aggregated ones already hold what they gather, so that they work before any
    controller runs.
    """
    roles = [
        _object("ClusterRole", name, rules=_rules(table))
        for name, table in {**_CLUSTER_ROLES, **CONTROLLER_ROLES}.items()
    ]
    for name, label in _AGGREGATED.items():
        rules = [rule for source in _gathered(name) for rule in _rules(_CLUSTER_ROLES[source])]
        selector = {"matchLabels": {f"{_AGGREGATE}{label}": "true"}}
        roles.append(_object("ClusterRole", name, aggregationRule={"clusterRoleSelectors": [selector]}, rules=rules))
    for role in roles:
        into = _GATHERED_INTO.get(role["metadata"]["name"])
        if into:
            role["metadata"]["labels"][f"{_AGGREGATE}{into}"] = "true"
    return roles


def _subjects(subjects: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    out = []
    for kind, name in subjects:
        if kind == "ServiceAccount":
            namespace, _, account = name.partition("/")
            out.append({"kind": kind, "name": account, "namespace": namespace})
        else:
            out.append({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
    return out


def _role_ref(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def cluster_role_bindings() -> list[dict[str, Any]]:
    """Every default ClusterRoleBinding.

    The controllers run in one process under one certificate, so each controller's role is bound to that user beside
    the service account that upstream binds it to.
    """
    bindings = dict(_CLUSTER_BINDINGS)
    for role in CONTROLLER_ROLES:
        account = role.removeprefix("system:controller:")
        bindings[role] = (("ServiceAccount", f"kube-system/{account}"), ("User", "system:kube-controller-manager"))
    return [
        _object("ClusterRoleBinding", name, roleRef=_role_ref("ClusterRole", name), subjects=_subjects(subjects))
        for name, subjects in bindings.items()
    ]


def roles() -> list[dict[str, Any]]:
    """Every default Role."""
    return [_object("Role", name, namespace, rules=_rules(table)) for (namespace, name), table in _ROLES.items()]


def role_bindings() -> list[dict[str, Any]]:
    """Every default RoleBinding."""
    return [
        _object("RoleBinding", name, namespace, roleRef=_role_ref("Role", role), subjects=_subjects(subjects))
        for (namespace, name), (role, subjects) in _ROLE_BINDINGS.items()
    ]


def objects() -> list[dict[str, Any]]:
    """All of them, roles before the bindings that refer to them. The namespaces kube-system and kube-public must
    exist.
    """
    return [*cluster_roles(), *cluster_role_bindings(), *roles(), *role_bindings()]

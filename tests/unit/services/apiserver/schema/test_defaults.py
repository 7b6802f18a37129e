"""Defaults, against what an upstream v1.37 apiserver is known to write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from machinery.api import kinds
from services.apiserver.schema import defaults, intake, validate
from services.apiserver.schema.defaulting.pods import pull_policy

Obj = dict[str, Any]
Valid = Callable[[str], tuple[kinds.Kind, Obj]]

CONTAINER: Obj = {"name": "a", "image": "nginx"}
DEFAULT_CONTAINER: Obj = {
    "name": "a",
    "image": "nginx",
    "imagePullPolicy": "Always",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
DEFAULT_TEMPLATE_SPEC: Obj = {
    "containers": [DEFAULT_CONTAINER],
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}


def defaulted(kind: kinds.Kind, obj: Obj) -> Obj:
    obj = copy.deepcopy(obj)
    intake.take_in(kind, obj, "Strict")
    return defaults.apply_defaults(kind, obj)


def template() -> Obj:
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [dict(CONTAINER)]}}


DEFAULT_TEMPLATE: Obj = {"metadata": {"labels": {"a": "b"}}, "spec": DEFAULT_TEMPLATE_SPEC}
SELECTOR: Obj = {"matchLabels": {"a": "b"}}


def test_pod() -> None:
    assert defaulted(kinds.POD, {"spec": {"containers": [dict(CONTAINER)]}}) == {
        "spec": {**DEFAULT_TEMPLATE_SPEC, "enableServiceLinks": True},
        "status": {},
    }


def test_deployment() -> None:
    found = defaulted(kinds.DEPLOYMENT, {"spec": {"selector": SELECTOR, "template": template()}})
    assert found["spec"] == {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "selector": SELECTOR,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
        "template": DEFAULT_TEMPLATE,
    }


def test_recreate_gets_no_rolling_update() -> None:
    found = defaulted(kinds.DEPLOYMENT, {"spec": {"strategy": {"type": "Recreate"}}})
    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_daemon_set() -> None:
    found = defaulted(kinds.DAEMON_SET, {"spec": {"selector": SELECTOR, "template": template()}})
    assert found["spec"] == {
        "revisionHistoryLimit": 10,
        "selector": SELECTOR,
        "template": DEFAULT_TEMPLATE,
        "updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
    }


def test_stateful_set() -> None:
    claim = {"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    spec = {"selector": SELECTOR, "serviceName": "s", "template": template(), "volumeClaimTemplates": [claim]}
    found = defaulted(kinds.STATEFUL_SET, {"spec": spec})
    assert found["spec"] == {
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "podManagementPolicy": "OrderedReady",
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "selector": SELECTOR,
        "serviceName": "s",
        "template": DEFAULT_TEMPLATE,
        "updateStrategy": {"rollingUpdate": {"partition": 0}, "type": "RollingUpdate"},
        "volumeClaimTemplates": [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "d"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {}, "volumeMode": "Filesystem"},
                "status": {"phase": "Pending"},
            }
        ],
    }


def test_job() -> None:
    found = defaulted(kinds.JOB, {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}})
    spec = found["spec"]
    del spec["template"]
    assert spec == {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
        "suspend": False,
    }


def test_a_job_with_parallelism_alone_is_a_work_queue() -> None:
    spec = defaulted(kinds.JOB, {"spec": {"parallelism": 3, "template": template()}})["spec"]
    assert "completions" not in spec
    assert spec["parallelism"] == 3


def test_a_job_with_a_back_off_per_index_has_no_limit_over_all() -> None:
    spec = defaulted(
        kinds.JOB,
        {"spec": {"backoffLimitPerIndex": 1, "completionMode": "Indexed", "completions": 2, "template": template()}},
    )["spec"]
    assert spec["backoffLimit"] == 2**31 - 1


def test_cron_job() -> None:
    found = defaulted(
        kinds.CRON_JOB, {"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template()}}}}
    )
    spec = found["spec"]
    assert spec.pop("jobTemplate") == {"metadata": {}, "spec": {"template": DEFAULT_TEMPLATE}}
    assert spec == {
        "concurrencyPolicy": "Allow",
        "failedJobsHistoryLimit": 1,
        "schedule": "@daily",
        "successfulJobsHistoryLimit": 3,
        "suspend": False,
    }


def test_service() -> None:
    found = defaulted(kinds.SERVICE, {"spec": {"ports": [{"port": 80}]}})
    assert found == {
        "spec": {
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def test_load_balancers_are_reached_from_outside() -> None:
    spec = defaulted(
        kinds.SERVICE, {"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 1}]}}
    )["spec"]
    assert spec["externalTrafficPolicy"] == "Cluster"
    assert spec["allocateLoadBalancerNodePorts"] is True
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_probes_and_their_actions() -> None:
    probe = {"httpGet": {"port": 80}, "timeoutSeconds": 0}
    container = {**CONTAINER, "livenessProbe": probe, "readinessProbe": {"grpc": {"port": 1}}}
    found = defaulted(kinds.POD, {"spec": {"containers": [container]}})["spec"]["containers"][0]
    timing = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
    assert found["livenessProbe"] == {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, **timing}
    assert found["readinessProbe"] == {"grpc": {"port": 1, "service": ""}, **timing}


def test_volumes() -> None:
    declared: list[Obj] = [
        {"name": "a"},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "hostPath": {"path": "/x"}},
        {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "e", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    found = defaulted(kinds.POD, {"spec": {"containers": [], "volumes": declared}})["spec"]["volumes"]
    field = {"apiVersion": "v1", "fieldPath": "metadata.name"}
    assert found == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "secret": {"defaultMode": 420, "secretName": "s"}},
        {"name": "c", "hostPath": {"path": "/x", "type": ""}},
        {
            "name": "d",
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"expirationSeconds": 3600, "path": "t"}}],
            },
        },
        {"name": "e", "downwardAPI": {"defaultMode": 420, "items": [{"path": "p", "fieldRef": field}]}},
    ]


def test_requests_follow_limits_in_pods_but_not_in_templates() -> None:
    container = {**CONTAINER, "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}
    pod = defaulted(kinds.POD, {"spec": {"containers": [container]}})
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    deployment = defaulted(kinds.DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [container]}}}})
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m"}


def test_host_network_fixes_host_ports() -> None:
    pod = {"spec": {"hostNetwork": True, "containers": [{**CONTAINER, "ports": [{"containerPort": 80}]}]}}
    assert defaulted(kinds.POD, pod)["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}
    ]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_rbac_groups() -> None:
    rbac = "rbac.authorization.k8s.io"
    binding = {
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
    }
    found = defaulted(kinds.ROLE_BINDING, binding)
    assert found["roleRef"]["apiGroup"] == rbac
    assert found["subjects"] == [
        {"apiGroup": rbac, "kind": "User", "name": "u"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
    ]


def test_limit_ranges_derive_what_is_between_min_and_max() -> None:
    item = {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}
    found = defaulted(kinds.LIMIT_RANGE, {"spec": {"limits": [item]}})["spec"]["limits"][0]
    assert found["default"] == {"cpu": "2"}
    assert found["defaultRequest"] == {"cpu": "2", "memory": "1Mi"}


def test_network_policies_name_their_types() -> None:
    assert defaulted(kinds.NETWORK_POLICY, {"spec": {"podSelector": {}}})["spec"]["policyTypes"] == ["Ingress"]
    found = defaulted(kinds.NETWORK_POLICY, {"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}})
    assert found["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert found["spec"]["egress"] == [{"ports": [{"port": 53, "protocol": "TCP"}]}]


def test_autoscalers_look_at_the_cpu() -> None:
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    found = defaulted(kinds.HORIZONTAL_POD_AUTOSCALER, {"spec": spec})["spec"]
    assert found["minReplicas"] == 1
    assert found["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
    ]


def test_webhooks() -> None:
    webhook = {
        "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    }  # fmt: skip
    found = defaulted(
        kinds.MUTATING_WEBHOOK_CONFIGURATION, {"kind": "MutatingWebhookConfiguration", "webhooks": [webhook]}
    )
    got = found["webhooks"][0]
    assert {name: got[name] for name in ("failurePolicy", "matchPolicy", "reinvocationPolicy", "timeoutSeconds")} == {
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "reinvocationPolicy": "Never", "timeoutSeconds": 10,
    }  # fmt: skip
    assert got["clientConfig"]["service"]["port"] == 443
    assert got["rules"][0]["scope"] == "*"
    assert got["namespaceSelector"] == got["objectSelector"] == {}


@pytest.mark.parametrize(
    "name",
    [
        "pod",
        "deployment",
        "daemonset",
        "statefulset",
        "job",
        "cronjob",
        "service",
        "configmap",
        "secret",
        "claim",
        "ingress",
    ],
)
def test_defaulting_twice_changes_nothing_and_the_result_is_valid(valid: Valid, name: str) -> None:
    kind, obj = valid(name)
    once = defaulted(kind, obj)
    assert defaulted(kind, once) == once
    assert validate.validate_create(kind, once) == []
    assert validate.validate_update(kind, once, once) == []

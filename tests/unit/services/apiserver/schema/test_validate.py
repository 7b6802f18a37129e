"""What is refused, with the field and in upstream's words; what may not change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from machinery.api import kinds
from machinery.api.errors import Cause, invalid
from services.apiserver.schema import defaults, intake, validate

Obj = dict[str, Any]
Valid = Callable[[str], tuple[kinds.Kind, Obj]]
MISSING = ...


def put(obj: Any, path: str, value: Any) -> None:
    """Set `spec.containers.0.name`; MISSING removes."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split("|")]
    for step in way:
        obj = obj[step] if isinstance(step, int) else obj.setdefault(step, {})
    if value is MISSING:
        obj.pop(last, None)
    else:
        obj[last] = value


def judged(kind: kinds.Kind, obj: Obj) -> list[str]:
    intake.take_in(kind, obj, "Strict")
    defaults.apply_defaults(kind, obj)
    return [f"{cause.field}: {cause.message}" for cause in validate.validate_create(kind, obj)]


C0 = "spec|containers|0|"
P = "spec.containers[0]"

REFUSED = [
    (
        "pod",
        "spec|hostnameOverride",
        "Not_A_Name",
        'spec.hostnameOverride: Invalid value: "Not_A_Name": a lowercase RFC 1123 subdomain must consist of',
    ),
    # Metadata.
    (
        "pod",
        "metadata|name",
        "myShirt",
        'metadata.name: Invalid value: "myShirt": a lowercase RFC 1123 subdomain must consist of',
    ),
    ("pod", "metadata|name", MISSING, "metadata.name: Required value: name or generateName is required"),
    ("pod", "metadata|namespace", MISSING, "metadata.namespace: Required value"),
    (
        "pod",
        "metadata|labels",
        {"a": "_x"},
        'metadata.labels: Invalid value: "_x": a valid label must be an empty string or',
    ),
    (
        "pod",
        "metadata|labels",
        {"a/b/c": "x"},
        'metadata.labels: Invalid value: "a/b/c": a qualified name must consist of',
    ),
    (
        "pod",
        "metadata|annotations",
        {"a": "x" * 262145},
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    ),
    (
        "pod",
        "metadata|finalizers",
        ["mine"],
        'metadata.finalizers: Invalid value: "mine": name is neither a standard finalizer name',
    ),
    (
        "pod",
        "metadata|ownerReferences",
        [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": ""}],
        "metadata.ownerReferences[0].uid: ",
    ),
    (
        "service",
        "metadata|name",
        "web.1",
        'metadata.name: Invalid value: "web.1": a lowercase RFC 1123 label must consist',
    ),
    # Containers.
    ("pod", "spec|containers", [], "spec.containers: Required value"),
    ("pod", C0 + "name", MISSING, f"{P}.name: Required value"),
    ("pod", C0 + "name", "Web_1", f'{P}.name: Invalid value: "Web_1": a lowercase RFC 1123 label must consist of'),
    ("pod", C0 + "image", MISSING, f"{P}.image: Required value"),
    (
        "pod",
        C0 + "image",
        " nginx",
        f'{P}.image: Invalid value: " nginx": must not have leading or trailing whitespace',
    ),
    (
        "pod",
        C0 + "imagePullPolicy",
        "Sometimes",
        f'{P}.imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"',
    ),
    (
        "pod",
        C0 + "ports|0|containerPort",
        0,
        f"{P}.ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive",
    ),
    (
        "pod",
        C0 + "ports|0|name",
        "Http",
        f'{P}.ports[0].name: Invalid value: "Http": must contain only alpha-numeric characters',
    ),
    (
        "pod",
        C0 + "ports|0|protocol",
        "ICMP",
        f'{P}.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
    ),
    ("pod", C0 + "env|0|name", "A=B", f'{P}.env[0].name: Invalid value: "A=B": '),
    (
        "pod",
        C0 + "env|1|value",
        "x",
        f'{P}.env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
    ),
    (
        "pod",
        C0 + "env|1|valueFrom|fieldRef|fieldPath",
        "spec.foo",
        f'{P}.env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo"',
    ),
    ("pod", C0 + "volumeMounts|0|name", "data", f'{P}.volumeMounts[0].name: Not found: "data"'),
    ("pod", C0 + "volumeMounts|0|mountPath", "", f"{P}.volumeMounts[0].mountPath: Required value"),
    (
        "pod",
        C0 + "volumeMounts|0|subPath",
        "../x",
        f"{P}.volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
    ),
    (
        "pod",
        C0 + "resources|requests",
        {"cpu": "2"},
        f'{P}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
    ),
    (
        "pod",
        C0 + "resources|limits",
        {"foo": "1"},
        f'{P}.resources.limits[foo]: Invalid value: "foo": must be a standard resource',
    ),
    ("pod", C0 + "livenessProbe", {}, f"{P}.livenessProbe: Required value: must specify a handler type"),
    (
        "pod",
        C0 + "livenessProbe|successThreshold",
        2,
        f"{P}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
    ),
    (
        "pod",
        C0 + "livenessProbe|tcpSocket",
        {"port": 1},
        f"{P}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
    ),
    ("pod", C0 + "lifecycle", {"preStop": {"exec": {}}}, f"{P}.lifecycle.preStop.exec.command: Required value"),
    (
        "pod",
        C0 + "securityContext",
        {"runAsUser": 2**31},
        f"{P}.securityContext.runAsUser: Invalid value: 2147483648: must be between 0 and",
    ),
    # Pods.
    (
        "pod",
        "spec|restartPolicy",
        "Maybe",
        'spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"',
    ),
    (
        "pod",
        "spec|dnsPolicy",
        "None",
        "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver",
    ),
    (
        "pod",
        "spec|volumes|0|secret",
        {"secretName": "x"},
        "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
    ),
    (
        "pod",
        "spec|tolerations",
        [{"operator": "Equal"}],
        'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty',
    ),
    (
        "pod",
        "spec|tolerations",
        [{"key": "a", "effect": "Never"}],
        'spec.tolerations[0].effect: Unsupported value: "Never"',
    ),
    (
        "pod",
        "spec|activeDeadlineSeconds",
        0,
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
    ),
    (
        "pod",
        "spec|topologySpreadConstraints",
        [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}],
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0",
    ),
    (
        "pod",
        "spec|hostAliases",
        [{"ip": "x"}],
        'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address',
    ),
    (
        "pod",
        "spec|ephemeralContainers",
        [{"name": "d", "image": "b"}],
        "spec.ephemeralContainers: Forbidden: cannot be set on create",
    ),
    (
        "pod",
        "spec|affinity",
        {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: "
        "Required value: can not be empty",
    ),
    # Workloads.
    ("deployment", "spec|selector", MISSING, "spec.selector: Required value"),
    ("deployment", "spec|selector", {}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (
        "deployment",
        "spec|selector",
        {"matchLabels": {"app": "x"}},
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
    ),
    ("deployment", "spec|replicas", -1, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    (
        "deployment",
        "spec|template|spec|restartPolicy",
        "Never",
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ),
    (
        "deployment",
        "spec|strategy",
        {"type": "Recreate", "rollingUpdate": {}},
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    ),
    (
        "deployment",
        "spec|strategy",
        {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
        'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
    ),
    (
        "deployment",
        "spec|minReadySeconds",
        600,
        "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
    ),
    (
        "daemonset",
        "spec|updateStrategy",
        {"rollingUpdate": {"maxSurge": 1}},
        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
    ),
    (
        "statefulset",
        "spec|template|spec|containers|0|volumeMounts",
        [{"name": "data", "mountPath": "/data"}],
        None,
    ),
    (
        "statefulset",
        "spec|template|spec|containers|0|volumeMounts",
        [{"name": "date", "mountPath": "/data"}],
        'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "date"',
    ),
    (
        "statefulset",
        "spec|podManagementPolicy",
        "Any",
        'spec.podManagementPolicy: Unsupported value: "Any": supported values: "OrderedReady", "Parallel"',
    ),
    (
        "job",
        "spec|template|spec|restartPolicy",
        "Always",
        'spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "Never", "OnFailure"',
    ),
    ("job", "spec|completionMode", "Indexed", None),
    (
        "cronjob",
        "spec|schedule",
        "61 * * * *",
        'spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61',
    ),
    ("cronjob", "spec|schedule", "* * *", 'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3'),
    (
        "cronjob",
        "spec|timeZone",
        "Mars/Olympus",
        'spec.timeZone: Invalid value: "Mars/Olympus": unknown time zone Mars/Olympus',
    ),
    ("cronjob", "metadata|name", "x" * 53, "must be no more than 52 characters"),
    # Services.
    ("service", "spec|ports", [], "spec.ports: Required value"),
    (
        "service",
        "spec|ports|0|port",
        70000,
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "service",
        "spec|ports|0|nodePort",
        30001,
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    ),
    (
        "service",
        "spec|type",
        "Magic",
        'spec.type: Unsupported value: "Magic": '
        'supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
    ),
    ("service", "spec|ports", [{"port": 1}, {"port": 2}], "spec.ports[0].name: Required value"),
    (
        "service",
        "spec|externalIPs",
        ["127.0.0.1"],
        'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range',
    ),
    (
        "service",
        "spec|sessionAffinity",
        "Sticky",
        'spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"',
    ),
    # Configuration.
    ("configmap", "data", {"../x": "y"}, 'data[../x]: Invalid value: "../x": a valid config key must consist of'),
    ("configmap", "data", {"..": "y"}, "data[..]: Invalid value: \"..\": must not be '..'"),
    ("configmap", "data", {"a": "x" * (1024 * 1024 + 1)}, ": Too long: may not be more than 1048576 bytes"),
    ("secret", "type", "kubernetes.io/tls", "data[tls.crt]: Required value"),
    ("claim", "spec|accessModes", [], "spec.accessModes: Required value: at least 1 access mode is required"),
    ("claim", "spec|resources", {}, "spec.resources[storage]: Required value"),
    ("ingress", "spec|rules", [], "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
    (
        "ingress",
        "spec|rules|0|host",
        "1.2.3.4",
        'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
    ),
    (
        "ingress",
        "spec|rules|0|http|paths|0|pathType",
        MISSING,
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
    ),
    (
        "ingress",
        "spec|rules|0|http|paths|0|path",
        "x",
        'spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path',
    ),
]


@pytest.mark.parametrize(("name", "path", "value", "expected"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_with_the_field_and_the_reason(
    valid: Valid, name: str, path: str, value: Any, expected: str | None
) -> None:
    kind, obj = valid(name)
    put(obj, path, copy.deepcopy(value))
    found = judged(kind, obj)
    if expected is None:
        assert found == []
    else:
        assert any(expected in line for line in found), found


def test_two_containers_of_one_name() -> None:
    one = {"name": "a", "image": "b"}
    obj = {"metadata": {"name": "x", "namespace": "d"}, "spec": {"containers": [dict(one), dict(one)]}}
    assert judged(kinds.POD, obj) == ['spec.containers[1].name: Duplicate value: "a"']


def test_a_deployment_of_nothing_names_each_missing_field() -> None:
    obj = {"metadata": {"name": "x", "namespace": "d"}}
    assert sorted(judged(kinds.DEPLOYMENT, obj)) == [
        "spec.selector: Required value",
        "spec.template.spec.containers: Required value",
    ]


def test_the_error_reads_as_upstreams() -> None:
    error = invalid(
        "apps",
        "Deployment",
        "web",
        [Cause("FieldValueInvalid", "Invalid value: -1: must be greater than or equal to 0", "spec.replicas")],
    )
    assert (
        error.message
        == 'Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0'
    )


CHANGES = [
    ("pod", C0 + "image", "nginx:1.28", None),
    ("pod", "spec|activeDeadlineSeconds", 5, None),
    ("pod", "metadata|labels", {"a": "b"}, None),
    (
        "pod",
        "spec|nodeName",
        "n1",
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
    ),
    ("pod", C0 + "args", ["x"], "spec: Forbidden: pod updates may not change fields other than"),
    ("pod", "spec|containers", [], "spec.containers: Required value"),
    ("pod", "spec|tolerations", [{"key": "new", "operator": "Exists"}], None),
    ("pod", "metadata|uid", "other", 'metadata.uid: Invalid value: "other": field is immutable'),
    ("deployment", "spec|replicas", 9, None),
    (
        "deployment",
        "spec|selector",
        {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        "spec.selector: Invalid value: ",
    ),
    (
        "statefulset",
        "spec|serviceName",
        "other",
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals'",
    ),
    ("statefulset", "spec|replicas", 5, None),
    ("job", "spec|parallelism", 2, None),
    ("job", "spec|completions", 4, "spec.completions: Invalid value: 4: field is immutable"),
    ("job", "spec|template|metadata|labels", {"x": "y"}, "spec.template: Invalid value: "),
    ("service", "spec|clusterIP", "10.0.0.9", "spec.clusterIPs[0]: Invalid value: "),
    ("service", "spec|selector", {"app": "other"}, None),
    ("secret", "type", "other/type", 'type: Invalid value: "other/type": field is immutable'),
    ("secret", "data", {}, None),
    (
        "claim",
        "spec|accessModes",
        ["ReadOnlyMany"],
        "spec: Forbidden: spec is immutable after creation except resources.requests",
    ),
]


@pytest.mark.parametrize(("name", "path", "value", "expected"), CHANGES, ids=lambda value: str(value)[:40])
def test_what_may_change_and_what_may_not(valid: Valid, name: str, path: str, value: Any, expected: str | None) -> None:
    kind, old = valid(name)
    if name == "service":
        old["spec"]["clusterIP"] = "10.0.0.1"
        old["spec"]["clusterIPs"] = ["10.0.0.1"]
    intake.take_in(kind, old)
    defaults.apply_defaults(kind, old)
    new = copy.deepcopy(old)
    put(new, path, copy.deepcopy(value))
    if path == "spec|clusterIP":
        new["spec"]["clusterIPs"] = [value]
    found = [f"{cause.field}: {cause.message}" for cause in validate.validate_update(kind, new, old)]
    if expected is None:
        assert found == []
    else:
        assert any(line.startswith(expected) for line in found), found


def test_an_immutable_config_map_stays(valid: Valid) -> None:
    kind, old = valid("configmap")
    old["immutable"] = True
    new = copy.deepcopy(old)
    new["data"]["a"] = "b"
    causes = validate.validate_update(kind, new, old)
    assert [(cause.field, cause.message) for cause in causes] == [
        ("data", "Forbidden: field is immutable when `immutable` is set")
    ]


def test_no_finalizer_is_added_to_what_is_being_deleted(valid: Valid) -> None:
    kind, old = valid("configmap")
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["a.b/c"]
    causes = validate.validate_update(kind, new, old)
    assert [cause.message for cause in causes] == [
        "Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"a.b/c"}'
    ]


def test_ephemeral_containers_may_only_be_added(valid: Valid) -> None:
    kind, old = valid("pod")
    defaults.apply_defaults(kind, old)
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox", "targetContainerName": "web"}]
    defaults.apply_defaults(kind, new)
    assert validate.validate_ephemeral_containers(kind, new, old) == []
    gone = validate.validate_ephemeral_containers(kind, old, new)
    assert gone[0].field == "spec.ephemeralContainers"
    assert gone[0].reason == "FieldValueForbidden"


def test_admission_policies_need_something_to_judge_and_expressions_that_compile() -> None:
    rule = {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    policy: Obj = {
        "metadata": {"name": "few"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.spec.replicas <= 5", "messageExpression": "'too many'"}],
            "matchConditions": [{"name": "not-kubelets", "expression": "!request.userInfo.username.startsWith('x')"}],
        },
    }
    assert judged(kinds.VALIDATING_ADMISSION_POLICY, copy.deepcopy(policy)) == []
    policy["spec"]["validations"][0] = {"expression": "object.spec.replicas <", "messageExpression": "1"}
    policy["spec"]["matchConditions"].append(policy["spec"]["matchConditions"][0])
    found = judged(kinds.VALIDATING_ADMISSION_POLICY, copy.deepcopy(policy))
    assert found[0].startswith("spec.validations[0].expression: Invalid value: ")
    assert found[1] == 'spec.validations[0].messageExpression: Invalid value: "1": must evaluate to string'
    assert found[2] == 'spec.matchConditions[1].name: Duplicate value: "not-kubelets"'
    del policy["spec"]["validations"]
    assert any(
        line.startswith("spec.validations: Required value")
        for line in judged(kinds.VALIDATING_ADMISSION_POLICY, policy)
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("10.96.0.7", ""),
        ("fe80::42:1dff:fe84:f9e2", ""),
        ("2001:DB8::1", 'must be in canonical form ("2001:db8::1")'),
        ("10.96.0", "must be a valid IP address"),
    ],
)
def test_an_ip_address_is_named_by_its_address(name: str, why: str) -> None:
    parent = {"group": "", "resource": "services", "namespace": "default", "name": "web"}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": name},
            "spec": {"parentRef": parent}}  # fmt: skip
    problems = judged(kinds.IP_ADDRESS, body)
    assert why in "".join(problems) if why else problems == []


def test_base64_may_come_in_lines_and_is_stored_in_one() -> None:
    kind = kinds.find("v1", "Secret")
    assert kind is not None
    body = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"k": "YWJj\r\nZGVm\n"}}
    intake.take_in(kind, body)
    assert body["data"] == {"k": "YWJjZGVm"}

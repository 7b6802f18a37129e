"""Back-off, quality of service, probes' thresholds, images' names, taints, hollow behaviour."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from lightkube.models import core_v1

from services.kubelet import admission, images, qos
from services.kubelet.back_off import BackOff, duration_text
from services.kubelet.hollow.behaviour import behaviour
from services.kubelet.node_status import parse_taint
from services.kubelet.probes import Counter
from tests.support.kubelet_pods import pod


def test_back_off_doubles_to_its_maximum_and_forgets() -> None:
    back_off = BackOff(10, 300)
    assert [back_off.next("k", now) for now in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    assert back_off.remaining("k", since=100, now=150) == 250
    assert back_off.next("k", 700) == 10
    assert [duration_text(s) for s in (10, 80, 300)] == ["10s", "1m20s", "5m0s"]


def resources(requests: dict, limits: dict) -> core_v1.Pod:
    return pod({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}})


def test_quality_of_service() -> None:
    both = {"cpu": "1", "memory": "1Gi"}
    assert qos.qos_class(pod()) == "BestEffort"
    assert qos.qos_class(resources({}, both)) == "Guaranteed"
    assert qos.qos_class(resources({"cpu": "500m", "memory": "1Gi"}, both)) == "Burstable"
    assert qos.qos_class(resources({"cpu": "1"}, {})) == "Burstable"


def test_shares_quota_and_weights() -> None:
    one = qos.container_resources(resources({"cpu": "250m"}, {"cpu": "500m"}).spec.containers[0])
    assert (one.cpu_shares, one.cpu_quota_us) == (256, 50_000)
    assert (qos.CpuMemory().cpu_shares, qos.CpuMemory().cpu_quota_us) == (2, -1)
    assert (qos.weight_of_shares(2), qos.weight_of_shares(262_144)) == (1, 10_000)


def test_pod_requests_count_the_largest_step() -> None:
    def container(name: str, cpu: str, **more: object) -> dict:
        return {"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = pod(
        container("a", "1"),
        initContainers=[container("i", "3"), container("s", "1", restartPolicy="Always"), container("j", "2")],
        overhead={"cpu": "100m"},
    )
    assert qos.pod_requests(spec)["cpu"] == 3100


def test_admission_refuses_what_does_not_fit() -> None:
    one = resources({"cpu": "600m"}, {})
    other = resources({"cpu": "600m"}, {})
    other.metadata.uid = "u2"
    assert admission.refuse(one, [], {"cpu": "1"}, 110) is None
    refusal = admission.refuse(one, [other], {"cpu": "1"}, 110)
    assert refusal is not None
    assert refusal.reason == "OutOfcpu"
    assert refusal.message == "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
    assert admission.refuse(one, [other], {"cpu": "9"}, 1).reason == "OutOfpods"


def test_probe_thresholds() -> None:
    counter = Counter(success_threshold=2, failure_threshold=3)
    assert [counter.add(ok) for ok in (True, True, False, False, False, True)] == [None, True, None, None, False, None]


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"), ("nginx:1", "docker.io/library/nginx:1"),
        ("me/app", "docker.io/me/app:latest"), ("localhost:5000/a:1", "localhost:5000/a:1"),
        ("r.io/a@sha256:" + "0" * 64, "r.io/a@sha256:" + "0" * 64),
    ],
)  # fmt: skip
def test_image_names(short: str, full: str) -> None:
    assert images.normalize(short) == full


def test_pull_policies_and_credentials() -> None:
    assert images.pull_policy(core_v1.Container(name="c", image="a")) == "Always"
    assert images.pull_policy(core_v1.Container(name="c", image="a:1")) == "IfNotPresent"
    auths = {
        "auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"u:p").decode()}, "r.io": {"username": "x"}}
    }
    data = {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}
    secret = msgspec.convert({"metadata": {"name": "s"}, "data": data}, core_v1.Secret)
    found = images.credentials([secret], "nginx")
    assert [(a.username, a.password) for a in found] == [("u", "p")]


def test_taints() -> None:
    assert parse_taint("a=b:NoSchedule") == {"key": "a", "value": "b", "effect": "NoSchedule"}
    assert parse_taint("a:NoExecute") == {"key": "a", "effect": "NoExecute"}


def test_hollow_behaviour() -> None:
    assert behaviour({}, "c", "regular", []).run_seconds is None
    assert behaviour({}, "c", "init", []).run_seconds == 0
    ended = behaviour({}, "c", "regular", ["sh", "-c", "sleep 2; exit 3"])
    assert (ended.run_seconds, ended.exit_code) == (2.0, 3)
    told = {"hollow.cutaway.dev/run-seconds": "5", "hollow.cutaway.dev/exit-code.c": "7"}
    assert (behaviour(told, "c", "regular", []).run_seconds, behaviour(told, "c", "regular", []).exit_code) == (5.0, 7)
    assert behaviour(told, "d", "regular", []).exit_code == 0


def test_unsafe_sysctls_are_refused() -> None:
    def sysctl(name: str) -> core_v1.Pod:
        return pod(securityContext={"sysctls": [{"name": name, "value": "1"}]})

    assert admission.refuse(sysctl("kernel.shm_rmid_forced"), [], {}, 10) is None
    refusal = admission.refuse(sysctl("kernel.msgmax"), [], {}, 10)
    assert refusal is not None
    assert (refusal.reason, refusal.message) == ("SysctlForbidden", 'forbidden sysctl: "kernel.msgmax" not allowlisted')
    assert admission.refuse(sysctl("kernel.msgmax"), [], {}, 10, ["kernel.msg*"]) is None


def test_extended_resources_that_the_node_does_not_list_are_no_reason() -> None:
    wants = {"example.com/foo": "1"}
    assert admission.refuse(resources(wants, wants), [], {"cpu": "1"}, 10) is None
    refusal = admission.refuse(resources(wants, wants), [], {"cpu": "1", "example.com/foo": "0"}, 10)
    assert refusal is not None
    assert refusal.reason == "OutOfexample.com/foo"


def test_host_ports_collide_by_address_and_protocol() -> None:
    def on(uid: str, **port: object) -> core_v1.Pod:
        found = pod({"name": "c", "image": "i", "ports": [{"containerPort": 80, **port}]})
        found.metadata.uid = uid
        return found

    taken = on("a", hostPort=80)
    for other, refused in (
        (on("b", hostPort=80), True), (on("b", hostPort=81), False), (on("b", hostPort=80, protocol="UDP"), False),
        (on("b", hostPort=80, hostIP="10.0.0.1"), True), (on("b"), False),
    ):  # fmt: skip
        refusal = admission.refuse(other, [taken], {}, 10)
        assert (refusal is not None and refusal.reason == "NodePorts") is refused


def test_a_node_that_the_pod_does_not_select_refuses_it() -> None:
    labels = {"disk": "ssd", "size": "5", "kubernetes.io/hostname": "n1"}
    assert admission.selects(pod(nodeSelector={"disk": "ssd"}), labels)
    assert not admission.selects(pod(nodeSelector={"disk": "hdd"}), labels)

    def affinity(operator: str, *values: str, key: str = "size", kind: str = "matchExpressions") -> core_v1.Pod:
        term = {kind: [{"key": key, "operator": operator, "values": list(values)}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        return pod(affinity={"nodeAffinity": required})

    for chosen, wanted in (
        (affinity("In", "5", "6"), True), (affinity("NotIn", "5"), False), (affinity("Gt", "4"), True),
        (affinity("Lt", "4"), False), (affinity("Exists"), True), (affinity("DoesNotExist", key="x"), True),
        (affinity("In", "n1", key="metadata.name", kind="matchFields"), True),
    ):  # fmt: skip
        assert admission.selects(chosen, labels) is wanted

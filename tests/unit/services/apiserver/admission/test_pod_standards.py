"""The Pod Security Standards, judged pod by pod."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver.admission.pod_standards import LATEST, violations


def pod(context: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"name": "c", "image": "i"} | (container or {})
    if context is not None:
        own["securityContext"] = context
    return {"spec": {"containers": [own], **spec}}


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_a_pod_that_asks_for_nothing_is_baseline_and_not_restricted() -> None:
    assert violations("baseline", pod()) == []
    assert len(violations("restricted", pod())) == 4


def test_a_pod_that_gives_everything_up_is_restricted() -> None:
    assert violations("restricted", pod(RESTRICTED)) == []


@pytest.mark.parametrize(
    ("case", "word"),
    [
        (pod(hostNetwork=True), "host namespaces"),
        (pod({"privileged": True}), "privileged"),
        (pod({"capabilities": {"add": ["SYS_ADMIN"]}}), "non-default capabilities"),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "hostPath volumes"),
        (pod(container={"ports": [{"containerPort": 80, "hostPort": 80}]}), "hostPort"),
        (pod({"procMount": "Unmasked"}), "procMount"),
        (pod({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
        (pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "forbidden sysctls"),
        (pod({"seLinuxOptions": {"type": "spc_t"}}), "seLinuxOptions"),
        (pod({"windowsOptions": {"hostProcess": True}}), "hostProcess"),
    ],
)
def test_what_baseline_refuses_is_named(case: dict[str, Any], word: str) -> None:
    found = violations("baseline", case)
    assert len(found) == 1
    assert found[0].startswith(word)
    assert violations("privileged", case) == []


@pytest.mark.parametrize("field", ["initContainers", "ephemeralContainers"])
def test_no_kind_of_container_escapes(field: str) -> None:
    assert violations("baseline", pod(**{field: [{"name": "x", "securityContext": {"privileged": True}}]}))


def annotated(key: str, value: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: value}}, **pod(RESTRICTED)}


@pytest.mark.parametrize(
    ("case", "level", "first_refused", "first_allowed"),
    [
        # Safe sysctls grew; probes' hosts, dropped capabilities, root by number, seccomp fields came later.
        (pod(securityContext={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}), "baseline", 0, 27),
        (pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_fin_timeout"}]}), "baseline", 0, 29),
        (pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}), "baseline", 0, 32),
        (pod({"seLinuxOptions": {"type": "container_engine_t"}}), "baseline", 0, 31),
        (pod(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}), "baseline", 34, None),
        (pod({"seccompProfile": {"type": "Unconfined"}}), "baseline", 19, None),
        (pod({"procMount": "Unmasked"}, hostUsers=False), "baseline", 0, 35),
        (pod({**RESTRICTED, "procMount": "Unmasked"}, hostUsers=False), "restricted", 0, None),
        (pod({**RESTRICTED, "capabilities": {}}), "restricted", 22, None),
        (pod({**RESTRICTED, "allowPrivilegeEscalation": True}), "restricted", 8, None),
        (pod({**RESTRICTED, "seccompProfile": None}), "restricted", 19, None),
        (pod({**RESTRICTED, "runAsUser": 0}), "restricted", 23, None),
        (pod({**RESTRICTED, "runAsUser": 0}, hostUsers=False), "restricted", 23, 35),
        (pod({**RESTRICTED, "runAsNonRoot": None}, hostUsers=False), "restricted", 0, 35),
        (pod({"runAsNonRoot": True}, os={"name": "windows"}), "restricted", 8, 25),
        (annotated("seccomp.security.alpha.kubernetes.io/pod", "unconfined"), "baseline", 0, 19),
    ],
    ids=str,
)
def test_a_control_counts_from_its_version_on(
    case: dict[str, Any], level: str, first_refused: int, first_allowed: int | None
) -> None:
    for version in (*range(37), LATEST):
        expected = version >= first_refused and (first_allowed is None or version < first_allowed)
        assert bool(violations(level, case, version)) is expected, version


@pytest.mark.parametrize("value", ["unconfined", "other", "Unconfined", "localhost"])
def test_an_app_armor_annotation_names_the_runtimes_profile_or_a_loaded_one(value: str) -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    assert violations("baseline", annotated(key, value)) == [
        f'forbidden AppArmor profile (annotation must not set AppArmor profile type to "{key}="{value}"")'
    ]
    for fine in ("", "runtime/default", "localhost/mine"):
        assert violations("baseline", annotated(key, fine)) == []


def test_a_level_holds_for_containers_of_every_kind() -> None:
    bad = {"name": "b", "image": "i", "securityContext": {"privileged": True}}
    for field in ("containers", "initContainers", "ephemeralContainers"):
        spec = {"containers": [{"name": "c", "image": "i"}], field: [bad]}
        assert violations("baseline", {"spec": spec}) == [
            'privileged (container "b" must not set securityContext.privileged=true)'
        ]

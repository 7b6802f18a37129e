"""The Pod Security Standards, judged pod by pod."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver.admission.pod_standards import violations


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

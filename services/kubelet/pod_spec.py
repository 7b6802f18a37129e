"""Reading a pod's spec: which containers there are, of which sort, and what applies to each. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from lightkube.models import core_v1

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
SOURCE_ANNOTATION = "kubernetes.io/config.source"
RESTART_ALL = "RestartAllContainers"
HASH_ANNOTATION = "kubernetes.io/config.hash"

AnyContainer = core_v1.Container | core_v1.EphemeralContainer


def init_containers(pod: core_v1.Pod) -> list[core_v1.Container]:
    return pod.spec.initContainers or []


def ephemeral_containers(pod: core_v1.Pod) -> list[core_v1.EphemeralContainer]:
    return pod.spec.ephemeralContainers or []


def is_sidecar(container: AnyContainer) -> bool:
    """An init container that is to keep running (`restartPolicy.

    Always` on it). Only meaningful for init containers.
    """
    return getattr(container, "restartPolicy", None) == "Always"


def sidecars(pod: core_v1.Pod) -> list[core_v1.Container]:
    return [c for c in init_containers(pod) if is_sidecar(c)]


def all_containers(pod: core_v1.Pod) -> Iterator[AnyContainer]:
    yield from init_containers(pod)
    yield from pod.spec.containers
    yield from ephemeral_containers(pod)


def find_container(pod: core_v1.Pod, name: str) -> AnyContainer | None:
    return next((c for c in all_containers(pod) if c.name == name), None)


def kind_of(pod: core_v1.Pod, container: AnyContainer) -> str:
    """`init`, `sidecar`, `ephemeral` or `regular`."""
    if any(c.name == container.name for c in init_containers(pod)):
        return "sidecar" if is_sidecar(container) else "init"
    return "ephemeral" if any(c.name == container.name for c in ephemeral_containers(pod)) else "regular"


def restart_policy(pod: core_v1.Pod) -> str:
    return pod.spec.restartPolicy or "Always"


def should_restart(pod: core_v1.Pod, container: AnyContainer, exit_code: int) -> bool:
    """Whether a regular or init container that ended with this code runs again.

    The container's own `restartPolicyRules` come first, then its own `restartPolicy`, then the pod's (KEP-5307).
    """
    if matching_action(container, exit_code) == "Restart":
        return True
    policy = getattr(container, "restartPolicy", None) or restart_policy(pod)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def matching_action(container: AnyContainer, exit_code: int) -> str | None:
    """What the first of the container's `restartPolicyRules` that this code matches asks for."""
    for rule in getattr(container, "restartPolicyRules", None) or []:
        codes = rule.exitCodes
        if codes is None:
            continue
        listed = exit_code in (codes.values or [])
        if listed if codes.operator == "In" else not listed:
            return str(rule.action)
    return None


def can_restart_all(pod: core_v1.Pod) -> bool:
    """Whether some container's end may start the whole pod anew in place (KEP-5532)."""
    return any(
        rule.action == RESTART_ALL
        for container in [*init_containers(pod), *pod.spec.containers]
        for rule in container.restartPolicyRules or []
    )


def spec_hash(container: AnyContainer) -> str:
    """Changes when a container has to be replaced in place: only its image may change in a pod's life."""
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:8]


def is_static(pod: core_v1.Pod) -> bool:
    """From a manifest on this node, not from the apiserver."""
    source = (pod.metadata.annotations or {}).get(SOURCE_ANNOTATION, "api")
    return source != "api"


def is_mirror(pod: core_v1.Pod) -> bool:
    return MIRROR_ANNOTATION in (pod.metadata.annotations or {})


def key(pod: core_v1.Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def full_name(pod: core_v1.Pod) -> str:
    """`name_namespace(uid)`, as messages name a pod."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def finished(pod: core_v1.Pod) -> bool:
    """The apiserver already knows that this pod is over for good."""
    return bool(pod.status and pod.status.phase in ("Succeeded", "Failed"))


def grace_period_seconds(pod: core_v1.Pod) -> int:
    """How long the pod's containers get to end: the deletion's own period if it is being deleted, else the spec's."""
    if pod.metadata.deletionGracePeriodSeconds is not None and pod.metadata.deletionTimestamp is not None:
        return pod.metadata.deletionGracePeriodSeconds
    return 30 if pod.spec.terminationGracePeriodSeconds is None else pod.spec.terminationGracePeriodSeconds


def recursive_read_only(mount: core_v1.VolumeMount, *, supported: bool) -> bool:
    """Whether what is mounted below a read-only mount is read-only too. Raises ValueError where it must and can't."""
    if not mount.readOnly or mount.recursiveReadOnly in (None, "Disabled"):
        return False
    if mount.recursiveReadOnly == "IfPossible":
        return supported and mount.mountPropagation in (None, "None")
    if not supported:
        raise ValueError(
            f'volume "{mount.name}" requested recursive read-only mode, but it is not supported by the runtime'
        )
    return True

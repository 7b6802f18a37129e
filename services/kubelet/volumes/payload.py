"""The files of configMap, secret, downwardAPI and projected volumes. Pure: from objects to {path: FileContent}."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from lightkube.models import core_v1

from services.kubelet import environment, pod_spec
from services.kubelet.environment import MissingReference, NodeFacts
from services.kubelet.volumes.atomic_writer import FileContent

DEFAULT_MODE = 0o644
Files = dict[str, FileContent]


def config_map_data(config_map: core_v1.ConfigMap) -> dict[str, bytes]:
    """All keys of a config map, text and binary."""
    data = {name: value.encode() for name, value in (config_map.data or {}).items()}
    data |= {name: base64.b64decode(value) for name, value in (config_map.binaryData or {}).items()}
    return data


def secret_data(secret: core_v1.Secret) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in (secret.data or {}).items()}


def keyed_files(
    what: str,
    data: Mapping[str, bytes] | None,
    items: Iterable[core_v1.KeyToPath] | None,
    mode: int | None,
    *,
    optional: bool = False,
) -> Files:
    """A file a key, or those that `items` choose. `what` names the object in errors: `configmap "ns"/"name"`."""
    default = DEFAULT_MODE if mode is None else mode
    if data is None:
        if optional:
            return {}
        raise MissingReference(f"{what} not found")
    chosen = list(items or ())
    if not chosen:
        return {name: FileContent(value, default) for name, value in data.items()}
    files: Files = {}
    for item in chosen:
        if item.key not in data:
            if optional:
                continue
            raise MissingReference(f"{what} references non-existent key: {item.key}")
        files[item.path] = FileContent(data[item.key], default if item.mode is None else item.mode)
    return files


def downward_files(
    pod: core_v1.Pod, items: Iterable[core_v1.DownwardAPIVolumeFile] | None, mode: int | None, node: NodeFacts
) -> Files:
    """The pod's own fields as files."""
    default = DEFAULT_MODE if mode is None else mode
    files: Files = {}
    for item in items or ():
        if item.fieldRef is not None:
            text = environment.field_value(pod, item.fieldRef.fieldPath, node)
        elif item.resourceFieldRef is not None:
            container = pod_spec.find_container(pod, item.resourceFieldRef.containerName or "")
            if container is None:
                raise MissingReference(f"container {item.resourceFieldRef.containerName} not found")
            text = environment.resource_value(pod, container, item.resourceFieldRef, node)
        else:
            continue
        files[item.path] = FileContent(text.encode(), default if item.mode is None else item.mode)
    return files


def token_owner(pod: core_v1.Pod) -> tuple[int, int | None]:
    """(mode, owner) of a service account token's file: as narrow as who has to read it allows.

    Group-readable under an fsGroup; owned by the one user that all containers run as; else readable by all of the pod.
    """
    security = pod.spec.securityContext
    if security is not None and security.fsGroup is not None:
        return 0o600, None
    users = set()
    for container in pod_spec.all_containers(pod):
        own = container.securityContext.runAsUser if container.securityContext else None
        shared = security.runAsUser if security else None
        users.add(own if own is not None else shared)
    if len(users) == 1 and None not in users:
        return 0o600, users.pop()
    return DEFAULT_MODE, None

"""The Pod Security Standards: what a pod must not do at each level, as of each version of the standards. Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ ; wording as k8s.io/pod-security-admission/policy
has it. A namespace may pin a version (`enforce-version: v1.24`): controls that are younger, or were widened or
narrowed since, then count as they did. The controls themselves are in `pod_controls`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from services.apiserver.admission import pod_controls as controls

LEVELS = ("privileged", "baseline", "restricted")
LATEST = 1 << 30
"""The version that a namespace means which pins none."""

Pod = dict[str, Any]
Check = Callable[[Pod], str]
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")

# A control: (the minor version from which it counts in this form, the form), oldest first.
Control = Sequence[tuple[int, Check]]

_COMMON: tuple[Control, ...] = (
    ((0, controls.host_namespaces),),
    ((0, controls.host_ports),),
    ((0, controls.host_process),),
    ((34, controls.host_probes),),
    ((0, controls.privileged),),
    ((0, controls.app_armor),),
    ((0, partial(controls.selinux, engine=False)), (31, controls.selinux)),
    tuple((version, partial(controls.sysctls, version=version)) for version in (0, 27, 29, 32)),
)
_BASELINE: tuple[Control, ...] = (
    *_COMMON,
    ((0, controls.host_path),),
    ((0, controls.capabilities_baseline),),
    ((0, controls.proc_mount), (35, controls.own_users(controls.proc_mount))),
    ((0, controls.seccomp_annotations), (19, controls.seccomp_baseline)),
)


def _not_windows(check: Check) -> Check:
    """Pods for Windows can't set this: from 1.25 on they need not."""
    return lambda pod: "" if controls.is_windows(pod) else check(pod)


_RESTRICTED: tuple[Control, ...] = (
    *_COMMON,
    ((0, controls.proc_mount),),
    ((8, controls.escalation), (25, _not_windows(controls.escalation))),
    (
        (0, controls.capabilities_baseline),
        (22, controls.capabilities_restricted),
        (25, _not_windows(controls.capabilities_restricted)),
    ),
    ((0, controls.volume_types),),
    ((0, controls.non_root), (35, controls.own_users(controls.non_root))),
    ((23, controls.root_user), (35, controls.own_users(controls.root_user))),
    (
        (0, controls.seccomp_annotations),
        (19, controls.seccomp_restricted),
        (25, _not_windows(controls.seccomp_restricted)),
    ),
)


def violations(level: str, pod: Pod, version: int = LATEST) -> list[str]:
    """What in a pod (or a pod template) breaks the level, a sentence each."""
    if level == "privileged":
        return []
    found = []
    for control in _BASELINE if level == "baseline" else _RESTRICTED:
        place = bisect_right(control, version, key=lambda form: form[0])
        if place and (broken := control[place - 1][1](pod)):
            found.append(broken)
    return found


def parse_version(text: str) -> int | None:
    """The minor version that a label names, `LATEST` for "latest"; None if it is neither."""
    match = _VERSION.fullmatch(text)
    return LATEST if text == "latest" else int(match[1]) if match else None

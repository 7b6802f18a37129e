"""The Pod Security Standards: what a pod must not do at each level. Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ ; wording as k8s.io/pod-security-admission/policy
has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

LEVELS = ("privileged", "baseline", "restricted")

Pod = dict[str, Any]
Check = Callable[[Pod], str]

_BASELINE_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID",
        "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip
_SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    )
)  # fmt: skip
_RESTRICTED_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "image",
    )
)
_SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))


def violations(level: str, pod: Pod) -> list[str]:
    """What in a pod (or a pod template) breaks the level, a sentence each."""
    if level == "privileged":
        return []
    checks = _BASELINE if level == "baseline" else _RESTRICTED
    return [found for check in checks if (found := check(pod))]


def _spec(pod: Pod) -> dict[str, Any]:
    return pod.get("spec") or {}


def _containers(pod: Pod) -> Iterator[dict[str, Any]]:
    spec = _spec(pod)
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _context(part: dict[str, Any]) -> dict[str, Any]:
    return part.get("securityContext") or {}


def _is_windows(pod: Pod) -> bool:
    return (_spec(pod).get("os") or {}).get("name") == "windows"


def _named(names: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"container {quoted}" if len(names) == 1 else f"containers {quoted}"


def _bad(pod: Pod, broken: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [container.get("name", "") for container in _containers(pod) if broken(container)]


# --- baseline


def _host_process(pod: Pod) -> str:
    def wants(part: dict[str, Any]) -> bool:
        return bool((_context(part).get("windowsOptions") or {}).get("hostProcess"))

    bad = _bad(pod, wants)
    if wants(_spec(pod)):
        return "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"
    return f"hostProcess ({_named(bad)} must not set securityContext.windowsOptions.hostProcess=true)" if bad else ""


def _host_namespaces(pod: Pod) -> str:
    spec = _spec(pod)
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _privileged(pod: Pod) -> str:
    bad = _bad(pod, lambda container: bool(_context(container).get("privileged")))
    return f"privileged ({_named(bad)} must not set securityContext.privileged=true)" if bad else ""


def _capabilities_baseline(pod: Pod) -> str:
    bad, added = [], set()
    for container in _containers(pod):
        wrong = {
            name
            for name in (_context(container).get("capabilities") or {}).get("add") or ()
            if name not in _BASELINE_CAPABILITIES
        }
        if wrong:
            bad.append(container.get("name", ""))
            added |= wrong
    if not bad:
        return ""
    listed = ", ".join(f'"{name}"' for name in sorted(added))
    return f"non-default capabilities ({_named(bad)} must not include {listed} in securityContext.capabilities.add)"


def _host_path(pod: Pod) -> str:
    names = [volume.get("name", "") for volume in _spec(pod).get("volumes") or () if "hostPath" in volume]
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"hostPath volumes (volume{'s' if len(names) > 1 else ''} {quoted})" if names else ""


def _host_ports(pod: Pod) -> str:
    bad, ports = [], set()
    for container in _containers(pod):
        used = {port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")}
        if used:
            bad.append(container.get("name", ""))
            ports |= used
    if not bad:
        return ""
    word = "hostPorts" if len(ports) > 1 else "hostPort"
    uses = "uses" if len(bad) == 1 else "use"
    return f"hostPort ({_named(bad)} {uses} {word} {', '.join(map(str, sorted(ports)))})"


def _host_probes(pod: Pod) -> str:
    bad = []
    for container in _containers(pod):
        handlers = [container.get(field) or {} for field in ("livenessProbe", "readinessProbe", "startupProbe")]
        hooks = container.get("lifecycle") or {}
        handlers += [hooks.get("postStart") or {}, hooks.get("preStop") or {}]
        if any((handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")):
            bad.append(container.get("name", ""))
    return f"probe or lifecycle host ({_named(bad)} must not set a host)" if bad else ""


def _app_armor(pod: Pod) -> str:
    def wrong(part: dict[str, Any]) -> bool:
        profile = _context(part).get("appArmorProfile") or {}
        return profile.get("type") == "Unconfined"

    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    prefix = "container.apparmor.security.beta.kubernetes.io/"
    bad = _bad(pod, wrong)
    values = [value for key, value in annotations.items() if key.startswith(prefix) and value == "unconfined"]
    if bad or values or wrong(_spec(pod)):
        return 'forbidden AppArmor profile ("unconfined")'
    return ""


def _selinux(pod: Pod) -> str:
    options = [_context(part).get("seLinuxOptions") or {} for part in (_spec(pod), *_containers(pod))]
    types = sorted({item.get("type", "") for item in options} - _SELINUX_TYPES)
    if types or any(item.get("user") or item.get("role") for item in options):
        parts = [f"type {', '.join(types)!r}"] if types else []
        parts += ["user may not be set"] if any(item.get("user") for item in options) else []
        parts += ["role may not be set"] if any(item.get("role") for item in options) else []
        return f"seLinuxOptions ({'; '.join(parts)})"
    return ""


def _proc_mount(pod: Pod) -> str:
    bad = _bad(pod, lambda container: _context(container).get("procMount", "Default") != "Default")
    return f"procMount ({_named(bad)} must not set securityContext.procMount)" if bad else ""


def _seccomp_baseline(pod: Pod) -> str:
    def unconfined(part: dict[str, Any]) -> bool:
        return (_context(part).get("seccompProfile") or {}).get("type") == "Unconfined"

    bad = _bad(pod, unconfined)
    if unconfined(_spec(pod)):
        return 'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'
    return (
        f'seccompProfile ({_named(bad)} must not set securityContext.seccompProfile.type to "Unconfined")'
        if bad
        else ""
    )


def _sysctls(pod: Pod) -> str:
    names = [item.get("name", "") for item in _context(_spec(pod)).get("sysctls") or ()]
    wrong = [name for name in names if name not in _SAFE_SYSCTLS]
    return f"forbidden sysctls ({', '.join(wrong)})" if wrong else ""


# --- restricted


def _volume_types(pod: Pod) -> str:
    names, kinds = [], set()
    for volume in _spec(pod).get("volumes") or ():
        wrong = {key for key in volume if key != "name"} - _RESTRICTED_VOLUMES
        if wrong:
            names.append(volume.get("name", ""))
            kinds |= wrong
    if not names:
        return ""
    quoted = ", ".join(f'"{name}"' for name in names)
    listed = ", ".join(f'"{kind}"' for kind in sorted(kinds))
    plural = "s" if len(names) > 1 else ""
    return (
        f"restricted volume types (volume{plural} {quoted} use{'' if plural else 's'} restricted volume type {listed})"
    )


def _escalation(pod: Pod) -> str:
    if _is_windows(pod):
        return ""
    bad = _bad(pod, lambda container: _context(container).get("allowPrivilegeEscalation") is not False)
    if not bad:
        return ""
    return f"allowPrivilegeEscalation != false ({_named(bad)} must set securityContext.allowPrivilegeEscalation=false)"


def _non_root(pod: Pod) -> str:
    by_pod = _context(_spec(pod)).get("runAsNonRoot")
    said_root = _bad(pod, lambda container: _context(container).get("runAsNonRoot") is False)
    unsaid = _bad(pod, lambda container: _context(container).get("runAsNonRoot") is None)
    if said_root:
        return f"runAsNonRoot != true ({_named(said_root)} must not set securityContext.runAsNonRoot=false)"
    if not unsaid or by_pod:
        return ""
    if by_pod is False:
        return "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"
    return f"runAsNonRoot != true (pod or {_named(unsaid)} must set securityContext.runAsNonRoot=true)"


def _root_user(pod: Pod) -> str:
    bad = _bad(pod, lambda container: _context(container).get("runAsUser") == 0)
    if _context(_spec(pod)).get("runAsUser") == 0:
        return "runAsUser=0 (pod must not set runAsUser=0)"
    return f"runAsUser=0 ({_named(bad)} must not set runAsUser=0)" if bad else ""


def _seccomp_restricted(pod: Pod) -> str:
    if _is_windows(pod):
        return ""
    allowed = ("RuntimeDefault", "Localhost")

    def kind(part: dict[str, Any]) -> str:
        return str((_context(part).get("seccompProfile") or {}).get("type", ""))

    wrong = _bad(pod, lambda container: kind(container) not in ("", *allowed))
    unsaid = _bad(pod, lambda container: not kind(container))
    if wrong or kind(_spec(pod)) not in ("", *allowed):
        who = _named(wrong) if wrong else "pod"
        return f'seccompProfile ({who} must not set securityContext.seccompProfile.type to "Unconfined")'
    if not unsaid or kind(_spec(pod)) in allowed:
        return ""
    return (
        f"seccompProfile (pod or {_named(unsaid)} must set securityContext.seccompProfile.type "
        'to "RuntimeDefault" or "Localhost")'
    )


def _capabilities_restricted(pod: Pod) -> str:
    if _is_windows(pod):
        return ""

    def capabilities(container: dict[str, Any]) -> dict[str, Any]:
        return _context(container).get("capabilities") or {}

    undropped = _bad(pod, lambda container: "ALL" not in (capabilities(container).get("drop") or ()))
    added, wrong = [], set()
    for container in _containers(pod):
        extra = set(capabilities(container).get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            added.append(container.get("name", ""))
            wrong |= extra
    parts = []
    if undropped:
        parts.append(f'{_named(undropped)} must set securityContext.capabilities.drop=["ALL"]')
    if added:
        listed = ", ".join(f'"{name}"' for name in sorted(wrong))
        parts.append(f"{_named(added)} must not include {listed} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(parts)})" if parts else ""


_COMMON: tuple[Check, ...] = (
    _host_namespaces, _host_path, _host_ports, _host_process, _host_probes, _privileged, _app_armor, _selinux,
    _proc_mount,
    _sysctls,
)  # fmt: skip
_BASELINE: tuple[Check, ...] = (*_COMMON, _capabilities_baseline, _seccomp_baseline)
_RESTRICTED: tuple[Check, ...] = (
    *_COMMON, _escalation, _capabilities_restricted, _volume_types, _non_root, _root_user, _seccomp_restricted,
)  # fmt: skip

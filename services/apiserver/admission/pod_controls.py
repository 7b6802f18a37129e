"""Each control of the Pod Security Standards: a function from a pod to the sentence that says how it is broken, or "".

Which control counts at which level and version is for `pod_standards` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Pod = dict[str, Any]
Part = dict[str, Any]
"""The spec of a pod, or a container: what has a `securityContext`."""

_BASELINE_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip
# The minor version from which each is safe.
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
}
_RESTRICTED_VOLUMES = frozenset(
    (
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    )
)  # fmt: skip
_SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
_CONFINED = ("RuntimeDefault", "Localhost")
_APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_ANNOTATION = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER_ANNOTATION = "container.seccomp.security.alpha.kubernetes.io/"


def _spec(pod: Pod) -> Part:
    return pod.get("spec") or {}


def _containers(pod: Pod) -> Iterator[Part]:
    spec = _spec(pod)
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _context(part: Part) -> Part:
    return part.get("securityContext") or {}


def _annotations(pod: Pod) -> dict[str, str]:
    return (pod.get("metadata") or {}).get("annotations") or {}


def is_windows(pod: Pod) -> bool:
    """Whether a pod says that it is for Windows."""
    return (_spec(pod).get("os") or {}).get("name") == "windows"


def own_users(check: Callable[[Pod], str]) -> Callable[[Pod], str]:
    """The control where pods with user namespaces are exempt: their root is nobody on the node (KEP-127). A kubelet
    that has none refuses such pods.
    """
    return lambda pod: "" if _spec(pod).get("hostUsers") is False else check(pod)


# --- words


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _plural(word: str, names: Iterable[Any]) -> str:
    return word if len(list(names)) == 1 else f"{word}s"


def _named(names: list[str]) -> str:
    return f"{_plural('container', names)} {_quoted(names)}"


def _bad(pod: Pod, broken: Callable[[Part], bool]) -> list[str]:
    return [container.get("name", "") for container in _containers(pod) if broken(container)]


def _setters(pod: Pod, broken: Callable[[Part], bool]) -> str:
    """Who sets what must not be set: the pod, its containers, or both."""
    bad = _bad(pod, broken)
    return " and ".join([*(["pod"] if broken(_spec(pod)) else []), *([_named(bad)] if bad else [])])


# --- baseline


def host_process(pod: Pod) -> str:
    """No privileged access to a Windows node."""
    who = _setters(pod, lambda part: bool((_context(part).get("windowsOptions") or {}).get("hostProcess")))
    return f"hostProcess ({who} must not set securityContext.windowsOptions.hostProcess=true)" if who else ""


def host_namespaces(pod: Pod) -> str:
    """No sharing of the node's network, processes, IPC."""
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if _spec(pod).get(field)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def privileged(pod: Pod) -> str:
    """No privileged containers."""
    bad = _bad(pod, lambda container: bool(_context(container).get("privileged")))
    return f"privileged ({_named(bad)} must not set securityContext.privileged=true)" if bad else ""


def _added(pod: Pod, allowed: frozenset[str]) -> tuple[list[str], list[str]]:
    """(containers that add other capabilities, those capabilities)."""
    bad, wrong = [], set()
    for container in _containers(pod):
        extra = set((_context(container).get("capabilities") or {}).get("add") or ()) - allowed
        if extra:
            bad.append(container.get("name", ""))
            wrong |= extra
    return bad, sorted(wrong)


def capabilities_baseline(pod: Pod) -> str:
    """No capabilities beyond the runtime's default ones."""
    bad, wrong = _added(pod, _BASELINE_CAPABILITIES)
    if not bad:
        return ""
    what = f"must not include {_quoted(wrong)} in securityContext.capabilities.add"
    return f"non-default capabilities ({_named(bad)} {what})"


def host_path(pod: Pod) -> str:
    """No directories of the node."""
    names = [volume.get("name", "") for volume in _spec(pod).get("volumes") or () if "hostPath" in volume]
    return f"hostPath volumes ({_plural('volume', names)} {_quoted(names)})" if names else ""


def host_ports(pod: Pod) -> str:
    """No ports of the node."""
    bad, ports = [], set()
    for container in _containers(pod):
        used = {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")}
        if used:
            bad.append(container.get("name", ""))
            ports |= used
    if not bad:
        return ""
    uses = "uses" if len(bad) == 1 else "use"
    return f"hostPort ({_named(bad)} {uses} {_plural('hostPort', ports)} {', '.join(sorted(ports))})"


def host_probes(pod: Pod) -> str:
    """No probes or hooks that make the kubelet call other hosts."""
    bad, hosts = set(), set()
    for container in _containers(pod):
        handlers = [container.get(field) or {} for field in ("livenessProbe", "readinessProbe", "startupProbe")]
        hooks = container.get("lifecycle") or {}
        handlers += [hooks.get("postStart") or {}, hooks.get("preStop") or {}]
        used = {(handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")}
        if used := used - {None, ""}:
            bad.add(container.get("name", ""))
            hosts |= used
    if not bad:
        return ""
    uses, word = "uses" if len(bad) == 1 else "use", _plural("probe or lifecycle host", hosts)
    return f"probe or lifecycle host ({_named(sorted(bad))} {uses} {word} {_quoted(sorted(hosts))})"


def _unconfined_by(pod: Pod, field: str) -> tuple[str, set[str]]:
    """Who sets a profile, in this field of its security context, that does not confine; and the types of these."""
    wrong = set()

    def broken(part: Part) -> bool:
        profile = _context(part).get(field)
        if profile is None or profile.get("type", "") in _CONFINED:
            return False
        wrong.add(profile.get("type", ""))
        return True

    return _setters(pod, broken), wrong


def app_armor(pod: Pod) -> str:
    """No AppArmor profile but the runtime's or one that the node has loaded."""
    who, wrong = _unconfined_by(pod, "appArmorProfile")
    notes = sorted(
        f'{key}="{value}"'
        for key, value in _annotations(pod).items()
        if key.startswith(_APP_ARMOR_ANNOTATION)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if not who and not notes:
        return ""
    values = [*sorted(wrong), *notes]
    who = " and ".join(filter(None, (who, _plural("annotation", notes) if notes else "")))
    title = _plural("forbidden AppArmor profile", values)
    return f"{title} ({who} must not set AppArmor profile type to {_quoted(values)})"


def selinux(pod: Pod, *, engine: bool = True) -> str:
    """No SELinux user or role, and only the types that are for containers (`engine`: container_engine_t too)."""
    allowed = _SELINUX_TYPES | {"container_engine_t"} if engine else _SELINUX_TYPES
    types, said = set(), set()

    def broken(part: Part) -> bool:
        options = _context(part).get("seLinuxOptions") or {}
        kind = options.get("type") or ""
        named = {f"{field} may not be set" for field in ("user", "role") if options.get(field)}
        said.update(named)
        if kind not in allowed:
            types.add(kind)
        return bool(named) or kind not in allowed

    who = _setters(pod, broken)
    if not who:
        return ""
    parts = [f"{_plural('type', types)} {_quoted(sorted(types))}"] if types else []
    parts += sorted(said, reverse=True)
    return f"seLinuxOptions ({who} set forbidden securityContext.seLinuxOptions: {'; '.join(parts)})"


def proc_mount(pod: Pod) -> str:
    """No /proc without its masks."""
    wrong = set()

    def broken(part: Part) -> bool:
        kind = _context(part).get("procMount") or "Default"
        if kind != "Default":
            wrong.add(kind)
        return bool(kind != "Default")

    bad = _bad(pod, broken)
    what = f"must not set securityContext.procMount to {_quoted(sorted(wrong))}"
    return f"procMount ({_named(bad)} {what})" if bad else ""


def seccomp_annotations(pod: Pod) -> str:
    """Before seccomp had fields: no unconfined profile by annotation."""
    keys = [_SECCOMP_ANNOTATION, *(_SECCOMP_CONTAINER_ANNOTATION + c.get("name", "") for c in _containers(pod))]
    notes = _annotations(pod)
    wrong = sorted(
        {
            f'{key}="{notes[key]}"'
            for key in keys
            if key in notes
            and notes[key] not in ("runtime/default", "docker/default")
            and not notes[key].startswith("localhost/")
        }
    )
    return f"seccompProfile (forbidden {_plural('annotation', wrong)} {', '.join(wrong)})" if wrong else ""


def _unconfined(pod: Pod) -> str:
    who, wrong = _unconfined_by(pod, "seccompProfile")
    what = f"must not set securityContext.seccompProfile.type to {_quoted(sorted(wrong))}"
    return f"seccompProfile ({who} {what})" if who else ""


def seccomp_baseline(pod: Pod) -> str:
    """No unconfined profile."""
    return _unconfined(pod)


def sysctls(pod: Pod, *, version: int) -> str:
    """None but those that are safe as of a version."""
    names = [item.get("name", "") for item in _context(_spec(pod)).get("sysctls") or ()]
    wrong = [name for name in names if _SAFE_SYSCTLS.get(name, version + 1) > version]
    return f"forbidden sysctls ({', '.join(wrong)})" if wrong else ""


# --- restricted


def volume_types(pod: Pod) -> str:
    """Only volumes that hold nothing of the node's."""
    names, kinds = [], set()
    for volume in _spec(pod).get("volumes") or ():
        present = {key for key in volume if key != "name" and volume[key] is not None}
        # One without a source is an emptyDir.
        if present and not present & _RESTRICTED_VOLUMES:
            names.append(volume.get("name", ""))
            kinds |= present
    if not names:
        return ""
    uses, word = "uses" if len(names) == 1 else "use", _plural("restricted volume type", kinds)
    return (
        f"restricted volume types ({_plural('volume', names)} {_quoted(names)} {uses} {word} {_quoted(sorted(kinds))})"
    )


def escalation(pod: Pod) -> str:
    """No gaining of rights by setuid programs."""
    bad = _bad(pod, lambda container: _context(container).get("allowPrivilegeEscalation") is not False)
    if not bad:
        return ""
    return f"allowPrivilegeEscalation != false ({_named(bad)} must set securityContext.allowPrivilegeEscalation=false)"


def non_root(pod: Pod) -> str:
    """The kubelet must refuse to run it as root."""
    who = _setters(pod, lambda part: _context(part).get("runAsNonRoot") is False)
    if who:
        return f"runAsNonRoot != true ({who} must not set securityContext.runAsNonRoot=false)"
    unsaid = _bad(pod, lambda container: _context(container).get("runAsNonRoot") is None)
    if not unsaid or _context(_spec(pod)).get("runAsNonRoot"):
        return ""
    return f"runAsNonRoot != true (pod or {_named(unsaid)} must set securityContext.runAsNonRoot=true)"


def root_user(pod: Pod) -> str:
    """Not root by number either."""
    who = _setters(pod, lambda part: _context(part).get("runAsUser") == 0)
    return f"runAsUser=0 ({who} must not set runAsUser=0)" if who else ""


def seccomp_restricted(pod: Pod) -> str:
    """A profile must be set, by the pod or by each container."""
    found = _unconfined(pod)
    if found or (_context(_spec(pod)).get("seccompProfile") or {}).get("type") in _CONFINED:
        return found
    unsaid = _bad(pod, lambda container: _context(container).get("seccompProfile") is None)
    what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_named(unsaid)} {what})" if unsaid else ""


def capabilities_restricted(pod: Pod) -> str:
    """All capabilities dropped, and none added but NET_BIND_SERVICE."""
    kept = _bad(pod, lambda part: "ALL" not in ((_context(part).get("capabilities") or {}).get("drop") or ()))
    added, wrong = _added(pod, frozenset(("NET_BIND_SERVICE",)))
    parts = []
    if kept:
        parts.append(f'{_named(kept)} must set securityContext.capabilities.drop=["ALL"]')
    if added:
        parts.append(f"{_named(added)} must not include {_quoted(wrong)} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(parts)})" if parts else ""

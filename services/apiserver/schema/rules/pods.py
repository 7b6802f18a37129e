"""Pods and pod templates, and what of a pod may change (pkg/apis/core/validation)."""

from __future__ import annotations

import copy
import ipaddress
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import containers, selectors, volumes

Obj = dict[str, Any]

TOLERATION_LABEL_OPERATORS = ("Equal", "Exists")
_HOSTNAME_MAX = 64  # sethostname(2) on Linux
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def create(obj: Obj) -> list[Cause]:
    """A new Pod."""
    found = pod_spec(obj.get("spec") or {}, "spec")
    if (obj.get("spec") or {}).get("ephemeralContainers"):
        detail = "cannot be set on create"
        found.append(causes.forbidden("spec.ephemeralContainers", detail))
    return found


def template(holder: Obj, path: str) -> list[Cause]:
    """A workload's `template`."""
    pod_template = holder.get("template") or {}
    spec = pod_template.get("spec") or {}
    found = pod_spec(spec, f"{path}.template.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        found.append(causes.forbidden(f"{path}.template.spec.ephemeralContainers", detail))
    return found


def template_object(obj: Obj) -> list[Cause]:
    """A PodTemplate."""
    return pod_spec((obj.get("template") or {}).get("spec") or {}, "template.spec")


def pod_spec(spec: Obj, path: str) -> list[Cause]:
    """The spec of a pod or template."""
    found: list[Cause] = []
    by_name: dict[str, Obj] = {}
    if spec.get("volumes"):
        by_name, found = volumes.volumes(spec["volumes"], f"{path}.volumes")
    claims: list[str] = [claim.get("name", "") for claim in spec.get("resourceClaims") or ()]
    found += _containers(spec, path, by_name, claims)
    if spec.get("tolerations"):
        found += tolerations(spec["tolerations"], f"{path}.tolerations")
    if spec.get("affinity"):
        found += _affinity(spec["affinity"], f"{path}.affinity")
    if spec.get("topologySpreadConstraints"):
        found += _spread(spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    if spec.get("securityContext"):
        found += _security(spec, f"{path}.securityContext")
    if spec.get("dnsPolicy") == "None" or spec.get("dnsConfig"):
        found += _dns(spec, path)
    found += _hostname(spec, path)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        found += _ip(alias.get("ip") or "", f"{path}.hostAliases[{index}].ip")
        for hostname in alias.get("hostnames") or ():
            at = f"{path}.hostAliases[{index}].hostnames"
            found += [causes.invalid(at, hostname, why) for why in names.dns_subdomain(hostname)]
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType") or ""
        at = f"{path}.readinessGates[{index}].conditionType"
        found += [causes.invalid(at, kind, why) for why in names.qualified_name(kind)]
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name") or ""
        at = f"{path}.schedulingGates[{index}]"
        found += [causes.invalid(at, name, why) for why in names.qualified_name(name)]
        if name in seen:
            found.append(causes.duplicate(at, name))
        seen.add(name)
    if spec.get("nodeName") and spec.get("schedulingGates"):
        found.append(causes.forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared"))
    if spec.get("overhead"):
        found += containers.resource_requirements({"limits": spec["overhead"]}, f"{path}.overhead")
    return found


def _containers(spec: Obj, path: str, by_name: dict[str, Obj], claims: list[str]) -> list[Cause]:
    found: list[Cause] = []
    mains = spec.get("containers") or []
    if not mains:
        found.append(causes.required(f"{path}.containers"))
    grace = spec.get("terminationGracePeriodSeconds")
    taken: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    for index, one in enumerate(mains):
        here = f"{path}.containers[{index}]"
        found += _unique(one, here, taken)
        found += containers.container(one, here, by_name, claims)
        found += containers.hooks_and_probes(one, here, grace)
        policy = one.get("restartPolicy")
        if policy and policy not in ("Always", "OnFailure", "Never"):
            found.append(causes.not_supported(f"{here}.restartPolicy", policy, ("Always", "Never", "OnFailure")))
        for place, port in enumerate(one.get("ports") or ()):
            found += _host_port(port, f"{here}.ports[{place}]", host_ports, spec)
    for index, one in enumerate(spec.get("initContainers") or ()):
        here = f"{path}.initContainers[{index}]"
        found += _unique(one, here, taken)
        found += containers.container(one, here, by_name, claims)
        found += _init(one, here, grace)
    for index, one in enumerate(spec.get("ephemeralContainers") or ()):
        here = f"{path}.ephemeralContainers[{index}]"
        found += _ephemeral(one, here, taken, mains, by_name, spec)
    return found


def _unique(one: Obj, path: str, taken: set[str]) -> list[Cause]:
    name = one.get("name")
    if not name:
        return []
    if name in taken:
        return [causes.duplicate(f"{path}.name", name)]
    taken.add(name)
    return []


def _host_port(port: Obj, path: str, taken: set[tuple[str, str, int]], spec: Obj) -> list[Cause]:
    number = port.get("hostPort")
    if not number:
        return []
    found: list[Cause] = []
    key = (port.get("protocol") or "TCP", port.get("hostIP") or "", number)
    if key in taken:
        shown = f"{key[0]}/{key[1]}/{number}" if key[1] else f"{key[0]}//{number}"
        found.append(causes.duplicate(f"{path}.hostPort", shown))
    taken.add(key)
    if spec.get("hostNetwork") and number != port.get("containerPort"):
        detail = "must match `hostPort` when `hostNetwork` is true"
        found.append(causes.invalid(f"{path}.containerPort", port.get("containerPort"), detail))
    return found


def _init(one: Obj, path: str, grace: int | None) -> list[Cause]:
    policy = one.get("restartPolicy")
    if policy == "Always":
        return containers.hooks_and_probes(one, path, grace)
    if policy and not one.get("restartPolicyRules") and policy not in ("OnFailure", "Never"):
        return [causes.not_supported(f"{path}.restartPolicy", policy, ("Always", "Never", "OnFailure"))]
    found: list[Cause] = []
    if one.get("lifecycle") is not None:
        found.append(
            causes.forbidden(f"{path}.lifecycle", "may not be set for init containers without restartPolicy=Always")
        )
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if one.get(name) is not None:
            detail = "may not be set for init containers without restartPolicy=Always"
            found.append(causes.forbidden(f"{path}.{name}", detail))
    return found


def _ephemeral(
    one: Obj, path: str, taken: set[str], mains: list[Obj], by_name: dict[str, Obj], spec: Obj
) -> list[Cause]:
    found = _unique(one, path, taken)
    target = one.get("targetContainerName")
    known = {main.get("name") for main in (*mains, *(spec.get("initContainers") or ()))}
    if target and target not in known:
        found.append(causes.not_found(f"{path}.targetContainerName", target))
    for field in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if one.get(field):
            found.append(causes.forbidden(f"{path}.{field}", "cannot be set for an Ephemeral Container"))
    resources = one.get("resources") or {}
    if resources:
        found.append(causes.forbidden(f"{path}.resources", "cannot be set for an Ephemeral Container"))
    for index, mount in enumerate(one.get("volumeMounts") or ()):
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                at = f"{path}.volumeMounts[{index}].{field}"
                found.append(causes.forbidden(at, "cannot be set for an Ephemeral Container"))
    return found + containers.container(one, path, by_name, ports=False)


def tolerations(declared: list[Obj], path: str) -> list[Cause]:
    """Tolerations of a pod."""
    found: list[Cause] = []
    for index, one in enumerate(declared):
        here = f"{path}[{index}]"
        operator = one.get("operator") or "Equal"
        if not one.get("key") and operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            found.append(causes.invalid(f"{here}.operator", one.get("operator", ""), detail))
        if one.get("tolerationSeconds") is not None and one.get("effect") != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(causes.invalid(f"{here}.effect", one.get("effect", ""), detail))
        match operator:
            case "Equal":
                value = one.get("value") or ""
                found += [causes.invalid(f"{here}.operator", value, why) for why in names.label_value(value)]
            case "Exists":
                if one.get("value"):
                    detail = "value must be empty when `operator` is 'Exists'"
                    found.append(causes.invalid(f"{here}.operator", one, detail))
            case "Gt" | "Lt":
                value = one.get("value") or ""
                if not value.lstrip("-").isdigit():
                    found.append(
                        causes.invalid(f"{here}.value", value, "must be an integer when operator is 'Lt' or 'Gt'")
                    )
            case _:
                found.append(causes.not_supported(f"{here}.operator", operator, TOLERATION_LABEL_OPERATORS))
    return found


def _affinity(affinity: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    node = affinity.get("nodeAffinity") or {}
    hard = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if hard is not None:
        found += selectors.node_selector(hard, f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution")
    for index, one in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        here = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference"
        found += selectors.node_selector_term(one.get("preference") or {}, here)
    for name in ("podAffinity", "podAntiAffinity"):
        pod = affinity.get(name) or {}
        for index, term in enumerate(pod.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            found += _affinity_term(term, f"{path}.{name}.requiredDuringSchedulingIgnoredDuringExecution[{index}]")
        for index, one in enumerate(pod.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{path}.{name}.preferredDuringSchedulingIgnoredDuringExecution[{index}].podAffinityTerm"
            found += _affinity_term(one.get("podAffinityTerm") or {}, here)
    return found


def _affinity_term(term: Obj, path: str) -> list[Cause]:
    found = selectors.label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    found += selectors.label_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        found += [causes.invalid(f"{path}.namespace", namespace, why) for why in names.dns_label(namespace)]
    key = term.get("topologyKey")
    if key:
        found += [causes.invalid(f"{path}.topologyKey", key, why) for why in names.qualified_name(key)]
    return found


def _spread(constraints: list[Obj], path: str) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, one in enumerate(constraints):
        here = f"{path}[{index}]"
        key, action = one.get("topologyKey") or "", one.get("whenUnsatisfiable") or ""
        if (key, action) in seen:
            found.append(causes.duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        seen.add((key, action))
        if one.get("minDomains") is not None and action != "DoNotSchedule":
            detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
            found.append(causes.invalid(f"{here}.minDomains", one["minDomains"], detail))
        found += selectors.label_selector(one.get("labelSelector"), f"{here}.labelSelector")
        if one.get("matchLabelKeys") and one.get("labelSelector") is None:
            detail = "must not be specified when labelSelector is not set"
            found.append(causes.forbidden(f"{here}.matchLabelKeys", detail))
    return found


def _security(spec: Obj, path: str) -> list[Cause]:
    security = spec["securityContext"]
    found = containers.confinement(security, path)
    seen: set[str] = set()
    for index, sysctl in enumerate(security.get("sysctls") or ()):
        here = f"{path}.sysctls[{index}].name"
        name = sysctl.get("name") or ""
        if name in seen:
            found.append(causes.duplicate(here, name))
        seen.add(name)
        parts = name.replace("/", ".").split(".")
        if name and not all(part and part[0].isalnum() and part[-1].isalnum() for part in parts):
            found.append(causes.invalid(here, name, "must have at most 253 characters and match regex of sysctls"))
        if spec.get("hostNetwork") and name.startswith("net."):
            found.append(causes.invalid(here, name, "may not be specified when 'hostNetwork' is true"))
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        if not 0 <= group < 2**31:
            at = f"{path}.supplementalGroups[{index}]"
            found.append(causes.invalid(at, group, "must be between 0 and 2147483647, inclusive"))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(causes.invalid(path.removesuffix(".securityContext") + ".shareProcessNamespace", True, detail))
    return found


def _hostname(spec: Obj, path: str) -> list[Cause]:
    """`hostnameOverride` stands alone and is a name (KEP-4762)."""
    override, at = spec.get("hostnameOverride"), f"{path}.hostnameOverride"
    if override is None:
        return []
    found = []
    for other in ("setHostnameAsFQDN", "hostNetwork"):
        if spec.get(other):
            found.append(causes.forbidden(at, f"may not be specified when {other} is true"))
    if len(override) > _HOSTNAME_MAX:
        found.append(causes.too_long(at, _HOSTNAME_MAX))
    return [*found, *(causes.invalid(at, override, why) for why in names.dns_subdomain(override))]


def _dns(spec: Obj, path: str) -> list[Cause]:
    config = spec.get("dnsConfig") or {}
    found: list[Cause] = []
    servers = config.get("nameservers") or []
    here = f"{path}.dnsConfig"
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        found.append(causes.required(f"{here}.nameservers", detail))
    if len(servers) > 3:
        found.append(causes.invalid(f"{here}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        found += _ip(server, f"{here}.nameservers[{index}]")
    searches = config.get("searches") or []
    if len(searches) > 32:
        found.append(causes.invalid(f"{here}.searches", searches, "must not have more than 32 search paths"))
    for index, search in enumerate(searches):
        bare = search.removesuffix(".").replace("_", "")
        if search != ".":
            found += [causes.invalid(f"{here}.searches[{index}]", search, why) for why in names.dns_subdomain(bare)]
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            found.append(causes.required(f"{here}.options[{index}]", "must not be empty"))
    return found


def _ip(address: str, path: str) -> list[Cause]:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        return [causes.invalid(path, address, detail)]
    return []


def update(new: Obj, old: Obj) -> list[Cause]:
    """A changed Pod, through its main resource."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if spec == before:
        return []
    found = pod_spec(spec, "spec")
    found += _container_sets(spec, before)
    if found:
        return found
    found += _deadline(spec, before)
    found += _added_tolerations(spec.get("tolerations") or [], before.get("tolerations") or [])
    if _frozen(spec, before) != _frozen(before, before):
        found.append(causes.forbidden("spec", _MUTABLE))
    return found


def _container_sets(spec: Obj, before: Obj) -> list[Cause]:
    found: list[Cause] = []
    for name in ("containers", "initContainers"):
        if len(spec.get(name) or ()) != len(before.get(name) or ()):
            found.append(causes.forbidden(f"spec.{name}", "pod updates may not add or remove containers"))
    if spec.get("ephemeralContainers") != before.get("ephemeralContainers"):
        detail = "pod updates may not change ephemeral containers: use the ephemeralcontainers subresource"
        found.append(causes.forbidden("spec.ephemeralContainers", detail))
    added = {gate.get("name") for gate in spec.get("schedulingGates") or ()}
    added -= {gate.get("name") for gate in before.get("schedulingGates") or ()}
    if added:
        detail = f"only deletion is allowed, but found new scheduling gate '{min(map(str, added))}'"
        found.append(causes.forbidden("spec.schedulingGates", detail))
    return found


def _deadline(spec: Obj, before: Obj) -> list[Cause]:
    new, old = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if old is None or new == old:
        return []
    if new is None:
        return [
            causes.invalid("spec.activeDeadlineSeconds", new, "must not update from a positive integer to nil value")
        ]
    if new > old:
        detail = "must be less than or equal to previous value"
        return [causes.invalid("spec.activeDeadlineSeconds", new, detail)]
    return []


def _added_tolerations(new: list[Obj], old: list[Obj]) -> list[Cause]:
    def bare(one: Obj) -> Obj:
        return {name: value for name, value in one.items() if name != "tolerationSeconds"}

    kept = [bare(one) for one in new]
    if all(bare(one) in kept for one in old):
        return []
    return [
        causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    ]


def _frozen(spec: Obj, before: Obj) -> Obj:
    """The spec without what may change."""
    frozen = dict(spec)
    for name in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"):
        frozen.pop(name, None)
    for name in ("containers", "initContainers"):
        if frozen.get(name):
            frozen[name] = [{key: value for key, value in one.items() if key != "image"} for one in frozen[name]]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        frozen["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    if before.get("schedulingGates"):
        # A gated pod's scheduling directives may still be tightened.
        frozen.pop("nodeSelector", None)
        frozen.pop("affinity", None)
    return frozen


def update_ephemeral_containers(new: Obj, old: Obj) -> list[Cause]:
    """A Pod changed through its ephemeralcontainers subresource: containers may only be added."""
    spec, before = copy.copy(new.get("spec") or {}), old.get("spec") or {}
    found = pod_spec(spec, "spec")
    names_now = {one.get("name"): one for one in spec.get("ephemeralContainers") or ()}
    for index, one in enumerate(before.get("ephemeralContainers") or ()):
        current = names_now.get(one.get("name"))
        here = f"spec.ephemeralContainers[{index}]"
        if current is None:
            detail = f'existing ephemeral containers "{one.get("name")}" may not be removed\n'
            found.append(causes.forbidden("spec.ephemeralContainers", detail))
        elif current != one:
            detail = f'existing ephemeral containers "{one.get("name")}" may not be changed\n'
            found.append(causes.forbidden(here, detail))
    return found


def update_resize(new: Obj, old: Obj) -> list[Cause]:
    """A Pod changed through its resize subresource: only resources of containers may change."""

    def bare(spec: Obj) -> Obj:
        out = dict(spec)
        out.pop("resources", None)
        for name in ("containers", "initContainers"):
            if out.get(name):
                out[name] = [
                    {k: v for k, v in one.items() if k not in ("resources", "resizePolicy")} for one in out[name]
                ]
        return out

    found = pod_spec(new.get("spec") or {}, "spec")
    if bare(new.get("spec") or {}) != bare(old.get("spec") or {}):
        found.append(causes.forbidden("spec", "only cpu and memory resources are mutable"))
    return found

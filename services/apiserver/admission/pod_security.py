"""PodSecurity: the namespace's labels say which Pod Security Standard its pods are held to.

    pod-security.kubernetes.io/enforce: baseline            refuse pods that break it
    pod-security.kubernetes.io/enforce-version: v1.24       as it was then; "latest" without the label
    pod-security.kubernetes.io/warn: restricted             accept, with a warning; also for workloads' templates
    pod-security.kubernetes.io/audit                        accept

The standards themselves are in `pod_standards.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.admission.pod_standards import LATEST, LEVELS, parse_version, violations
from services.apiserver.write_context import WriteContext

_PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
PODS_CHECKED_MAX = 3000
"""How many pods of a namespace are looked at when its level changes; upstream's number."""
# Where the pod template is in each workload.
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "podtemplates": ("template",),
    "replicationcontrollers": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}

Labels = Mapping[str, str]


class PodSecurity(Plugin):
    """Judges pods, warns about templates whose pods would be refused, and about pods that a namespace's new level would
    refuse.
    """

    resources = frozenset(("pods", "namespaces", *_TEMPLATES))
    subresources = frozenset(("", "ephemeralcontainers", "resize"))

    def validate(self, ctx: WriteContext) -> None:
        if ctx.resource.storage == "namespaces":
            _judge_namespace(ctx)
            return
        namespace = ctx.lookup.get("namespaces", "", ctx.namespace)
        labels = (namespace or {}).get("metadata", {}).get("labels") or {}
        if not any(key.startswith(_PREFIX) for key in labels):
            return
        if ctx.resource.storage == "pods":
            self._judge_pod(ctx, labels)
            return
        template: Any = ctx.obj
        for key in _TEMPLATES[ctx.resource.storage]:
            template = template.get(key) or {}
        _warn(ctx, labels, template)

    def _judge_pod(self, ctx: WriteContext, labels: Labels) -> None:
        if ctx.old is not None and not _is_significant(ctx.obj.get("spec") or {}, ctx.old.get("spec") or {}):
            return
        level, version = _policy(labels, "enforce")
        found = violations(level, ctx.obj, version)
        if found:
            raise errors.forbidden("", "pods", ctx.name, f'violates PodSecurity "{_text(labels, "enforce")}": '
                                                         f"{', '.join(found)}")  # fmt: skip
        _warn(ctx, labels, ctx.obj)


def _is_significant(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether an update brings in something to judge: a container, or another image. Nothing else of a pod that the
    standards look at can be changed.
    """
    for field in ("containers", "initContainers", "ephemeralContainers"):
        before = {container.get("name"): container.get("image") for container in old.get(field) or ()}
        after = {container.get("name"): container.get("image") for container in new.get(field) or ()}
        if any(name not in before or before[name] != image for name, image in after.items()):
            return True
        if field != "ephemeralContainers" and len(before) != len(after):
            return True
    return False


def _warn(ctx: WriteContext, labels: Labels, pod: dict[str, Any]) -> None:
    level, version = _policy(labels, "warn")
    found = violations(level, pod, version)
    if found:
        ctx.warnings.append(f'would violate PodSecurity "{_text(labels, "warn")}": {", ".join(found)}')


# --- labels


def _given(labels: Labels, mode: str) -> tuple[str, str]:
    """(level, version) as the labels say them. Who enforces a level and says nothing of warnings is warned of that."""
    level = labels.get(f"{_PREFIX}{mode}")
    version = labels.get(f"{_PREFIX}{mode}-version")
    if mode == "warn" and level is None and labels.get(f"{_PREFIX}enforce") in ("baseline", "restricted"):
        level = labels[f"{_PREFIX}enforce"]
        version = version if version is not None else labels.get(f"{_PREFIX}enforce-version")
    return level if level is not None else "privileged", version if version is not None else "latest"


def _policy(labels: Labels, mode: str) -> tuple[str, int]:
    level, version = _given(labels, mode)
    if level not in LEVELS:
        # As upstream: who writes a level that does not exist gets the strictest enforced, and no warnings.
        level = "restricted" if mode == "enforce" else "privileged"
    number = parse_version(version)
    return level, LATEST if number is None else number


def _text(labels: Labels, mode: str) -> str:
    level, version = _policy(labels, mode)
    return f"{level}:{'latest' if version == LATEST else f'v1.{version}'}"


def _problems(labels: Labels) -> Iterator[errors.Cause]:
    for mode in _MODES:
        level, version = labels.get(f"{_PREFIX}{mode}"), labels.get(f"{_PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            text = f'Invalid value: "{level}": must be one of {", ".join(LEVELS)}'
            yield errors.Cause("FieldValueInvalid", text, f"metadata.labels[{_PREFIX}{mode}]")
        if version is not None and parse_version(version) is None:
            text = f'Invalid value: "{version}": must be "latest" or "v1.x"'
            yield errors.Cause("FieldValueInvalid", text, f"metadata.labels[{_PREFIX}{mode}-version]")


# --- namespaces


def _judge_namespace(ctx: WriteContext) -> None:
    if ctx.subresource:
        return
    labels = ctx.metadata.get("labels") or {}
    old = ((ctx.old or {}).get("metadata") or {}).get("labels") or {}
    causes = list(_problems(labels))
    if causes and (ctx.old is None or causes != list(_problems(old))):
        raise errors.invalid("", "Namespace", ctx.name, causes)
    if ctx.old is None:
        return
    before, (level, version) = _policy(old, "enforce"), _policy(labels, "enforce")
    relaxed = before[1] == version and LEVELS.index(level) <= LEVELS.index(before[0])
    if level == "privileged" or relaxed:
        return
    ctx.warnings.extend(_present(ctx, level, version, _text(labels, "enforce")))


def _present(ctx: WriteContext, level: str, version: int, policy: str) -> Iterator[str]:
    """What of the pods that are there would be refused now: they stay, their replacements would not come."""
    by_reason: dict[str, list[str]] = {}
    total = 0
    for pod in ctx.lookup.list("pods", ctx.name):
        total += 1
        if total <= PODS_CHECKED_MAX:
            found = violations(level, pod, version)
            if found:
                reasons = ", ".join(sentence.partition(" (")[0] for sentence in found)
                by_reason.setdefault(reasons, []).append(pod["metadata"]["name"])
    if total > PODS_CHECKED_MAX:
        checked = f"the first {PODS_CHECKED_MAX} of {total} existing pods"
        yield f"new PodSecurity enforce level only checked against {checked}"
    if by_reason:
        yield f'existing pods in namespace "{ctx.name}" violate the new PodSecurity enforce level "{policy}"'
    lines = []
    for reasons, names in by_reason.items():
        others = {1: "", 2: " (and 1 other pod)"}.get(len(names), f" (and {len(names) - 1} other pods)")
        lines.append(f"{min(names)}{others}: {reasons}")
    yield from sorted(lines)

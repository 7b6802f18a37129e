"""PodSecurity: the namespace's labels say which Pod Security Standard its pods are held to.

    pod-security.kubernetes.io/enforce: baseline     refuse pods that break it
    pod-security.kubernetes.io/warn: restricted      accept, with a warning; also for workloads' templates
    pod-security.kubernetes.io/audit                 accept

The standards themselves are in `pod_standards.py`.
"""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.admission.pod_standards import LEVELS, violations
from services.apiserver.write_context import WriteContext

_PREFIX = "pod-security.kubernetes.io/"
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


class PodSecurity(Plugin):
    """Judges pods, and warns about templates whose pods would be refused."""

    resources = frozenset(("pods", *_TEMPLATES))
    subresources = frozenset(("", "ephemeralcontainers", "resize"))

    def validate(self, ctx: WriteContext) -> None:
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
        self._warn(ctx, labels, template)

    def _judge_pod(self, ctx: WriteContext, labels: dict[str, str]) -> None:
        if ctx.old is not None and not ctx.subresource and ctx.old.get("spec") == ctx.obj.get("spec"):
            return
        level = _level(labels, "enforce")
        found = violations(level, ctx.obj)
        if found:
            version = labels.get(f"{_PREFIX}enforce-version", "latest")
            why = f'violates PodSecurity "{level}:{version}": {", ".join(found)}'
            raise errors.forbidden("", "pods", ctx.name, why)
        self._warn(ctx, labels, ctx.obj)

    def _warn(self, ctx: WriteContext, labels: dict[str, str], pod: dict[str, Any]) -> None:
        level = _level(labels, "warn")
        if ctx.resource.storage != "pods" and f"{_PREFIX}warn" not in labels:
            level = _level(labels, "enforce")
        found = violations(level, pod)
        if found:
            version = labels.get(f"{_PREFIX}warn-version", "latest")
            ctx.warnings.append(f'would violate PodSecurity "{level}:{version}": {", ".join(found)}')


def _level(labels: dict[str, str], mode: str) -> str:
    level = labels.get(f"{_PREFIX}{mode}", "privileged")
    # As upstream: who writes a level that does not exist gets the strictest.
    return level if level in LEVELS else "restricted"

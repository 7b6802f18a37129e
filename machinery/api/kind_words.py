"""The words that people use for kinds: "deploy", "pods", "Pod"."""

from __future__ import annotations

from collections.abc import Iterable

from machinery.api.kinds import Kind

SHORT_NAMES = {
    "po": "pods", "deploy": "deployments", "rs": "replicasets", "sts": "statefulsets", "ds": "daemonsets",
    "svc": "services", "rc": "replicationcontrollers", "ing": "ingresses", "pvc": "persistentvolumeclaims",
    "ns": "namespaces", "no": "nodes", "quota": "resourcequotas", "pdb": "poddisruptionbudgets",
    "hpa": "horizontalpodautoscalers",
}  # fmt: skip


def named(word: str, among: Iterable[Kind]) -> Kind | None:
    """The kind that is meant; None if it is none of these."""
    wanted = SHORT_NAMES.get(word.lower(), word.lower())
    return next((kind for kind in among if wanted in (kind.plural, kind.kind.lower())), None)

"""The annotations by which kubectl and this controller remember a rollout's history."""

from __future__ import annotations

from services.controller_manager.views.meta import Meta
from services.controller_manager.views.workloads import Deployment

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

# These describe one object alone, so a Deployment does not hand them down to its ReplicaSets.
_NOT_HANDED_DOWN = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    )
)

# The history annotation forgets its oldest entries beyond this many characters, as upstream's does.
_HISTORY_CHARACTERS_MAX = 2000


def revision_of(meta: Meta) -> int:
    """The rollout revision that an object carries; 0 if none that is a number."""
    text = meta.annotations.get(REVISION, "")
    return int(text) if text.isdigit() else 0


def handed_down(deployment: Deployment) -> dict[str, str]:
    """The Deployment's annotations that its ReplicaSets get too (`kubernetes.io/change-cause` above all)."""
    return {name: value for name, value in deployment.metadata.annotations.items() if name not in _NOT_HANDED_DOWN}


def replica_set_annotations(deployment: Deployment, old: dict[str, str], revision: int) -> dict[str, str]:
    """The annotations of the new ReplicaSet at this revision.

    A ReplicaSet that becomes new again keeps its former revisions.
    """
    out = dict(old) | handed_down(deployment)
    before = old.get(REVISION, "")
    if (int(before) if before.isdigit() else 0) < revision:
        out[REVISION] = str(revision)
        if before:
            history = [entry for entry in old.get(REVISION_HISTORY, "").split(",") if entry]
            while history and sum(map(len, history)) + len(history) + len(before) > _HISTORY_CHARACTERS_MAX:
                history.pop(0)
            out[REVISION_HISTORY] = ",".join([*history, before])
    return out


def size_annotations(desired: int, maximum: int) -> dict[str, str]:
    """What the ReplicaSet was sized for: how a change of scale is told from a rollout."""
    return {DESIRED_REPLICAS: str(desired), MAX_REPLICAS: str(maximum)}

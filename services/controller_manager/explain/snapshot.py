"""The objects that an explanation is judged by: plain JSON, as of about one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]


@dataclass(slots=True)
class Snapshot:
    """Objects by kind, and what the scheduler says of pods that have no node."""

    objects: dict[str, list[Object]] = field(default_factory=dict)
    # "namespace/name" of a pod -> (the scheduler's sentence, what would make it fit).
    scheduling: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def all(self, kind: str, namespace: str = "") -> list[Object]:
        """Objects of a kind (in a namespace)."""
        found = self.objects.get(kind, [])
        return [o for o in found if not namespace or o["metadata"].get("namespace") == namespace]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        return next((o for o in self.all(kind, namespace) if o["metadata"]["name"] == name), None)

    def owned_by(self, kind: str, owner: Object) -> list[Object]:
        """Objects of a kind whose controller is this object."""
        return [
            o
            for o in self.all(kind, owner["metadata"].get("namespace", ""))
            if controller_uid(o) == owner["metadata"]["uid"]
        ]

    def warnings(self, about: Object) -> list[str]:
        """Messages of warning events about an object, newest first, each once."""
        uid = about["metadata"]["uid"]
        events = [
            e for e in self.all("Event") if e.get("involvedObject", {}).get("uid") == uid and e.get("type") == "Warning"
        ]
        events.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", reverse=True)
        return list(dict.fromkeys(f"{e.get('reason', '')}: {e.get('message', '')}" for e in events))


def controller_uid(obj: Object) -> str:
    """The uid of the object that controls this one; empty if none does."""
    owners = obj["metadata"].get("ownerReferences") or []
    return next((o["uid"] for o in owners if o.get("controller")), "")


def selects(selector: Mapping[str, str], labels: Mapping[str, str] | None) -> bool:
    """Whether equality requirements hold."""
    return all((labels or {}).get(key) == value for key, value in selector.items())


def condition(obj: Object, kind: str) -> Object | None:
    """A condition of an object's status, or None."""
    return next((c for c in obj.get("status", {}).get("conditions") or [] if c.get("type") == kind), None)


def subject(kind: str, obj: Object) -> str:
    """ "pod/web"."""
    return f"{kind.lower()}/{obj['metadata']['name']}"


def names(objects: Iterable[Object]) -> str:
    """For a sentence."""
    return ", ".join(o["metadata"]["name"] for o in objects)

"""Which pods belong together by default: those of one Service or one controller.

For spreading pods that say nothing about it themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from machinery.api import kinds, selectors
from machinery.api.selectors import LabelSelector, Requirement
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer
from services.scheduler.pod_info import PodInfo


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""


class _Spec(msgspec.Struct, gc=False):
    # A map of labels for Services and ReplicationControllers, a LabelSelector for the others.
    selector: dict[str, Any] | None = None


class _Owner(msgspec.Struct, gc=False):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)


_KNOWN_MAX = 4096

_decode = msgspec.json.Decoder(_Owner).decode

_CONTROLLERS = (kinds.REPLICA_SET, kinds.REPLICATION_CONTROLLER, kinds.STATEFUL_SET)


class OwnerSelectors:
    """Follows Services, ReplicaSets, ReplicationControllers and StatefulSets, as far as their selectors."""

    def __init__(self, client: ApiClient) -> None:
        self._services: Informer[_Owner] = Informer(client, kinds.SERVICE, decode=_decode)
        self._controllers: dict[str, Informer[_Owner]] = {
            kind.kind: Informer(client, kind, decode=_decode) for kind in _CONTROLLERS
        }
        # By the pod's signature, which holds its namespace, labels and controller; until a selector changes.
        self._known: dict[bytes, LabelSelector | None] = {}
        for informer in self.informers:
            informer.add_handler(self._on_change)

    def _on_change(self, old: _Owner | None, new: _Owner | None) -> None:
        if old is None or new is None or old.spec != new.spec:
            self._known.clear()

    @property
    def informers(self) -> list[Informer[Any]]:
        """What has to run."""
        return [self._services, *self._controllers.values()]

    def selector_of(self, pod: PodInfo) -> LabelSelector | None:
        """The selectors of the pod's Services and of its controller, all together; None if it has neither."""
        if pod.signature not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[pod.signature] = self._find(pod)
        return self._known[pod.signature]

    def _find(self, pod: PodInfo) -> LabelSelector | None:
        requirements: list[Requirement] = []
        for service in self._services.lister.list(pod.namespace):
            selector = service.spec.selector
            if selector and _matches(selector, pod.labels):
                requirements += selectors.from_labels(selector).requirements
        for owner in pod.pod.metadata.ownerReferences or ():
            informer = self._controllers.get(owner.kind) if owner.controller else None
            found = informer.lister.get(pod.namespace, owner.name) if informer else None
            if found is not None and found.spec.selector:
                requirements += _controller_selector(owner.kind, found.spec.selector).requirements
        unique = tuple(sorted(dict.fromkeys(requirements), key=lambda r: (r.key, r.operator, r.values)))
        return LabelSelector(unique) if unique else None


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _controller_selector(kind: str, selector: dict[str, Any]) -> LabelSelector:
    if kind == "ReplicationController":
        return selectors.from_labels(selector)
    return selectors.from_label_selector(selector)

"""The one table of what is served: a `Resource` a row, the `Registry` the table.

A row is one group, version and plural. Several rows can share one storage (events of both groups, both versions of an
autoscaler, every version of a custom resource): they differ in `kind` and convert at the edge; only the row of the
storage version does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from machinery.api import errors
from machinery.api.kinds import Kind

if TYPE_CHECKING:
    from services.apiserver.registry.schemas import Schema
    from services.apiserver.registry.strategy import Strategy

READ_WRITE = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE_ONLY = ("create",)
GET_PATCH_UPDATE = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object. `kind` is that of the body that it takes and gives: Pod for status, Scale for scale,
    Binding."""

    name: str
    kind: Kind
    verbs: tuple[str, ...]


class Conversion(Protocol):
    """Between a row's version and the version that is stored. Both may change their argument and return it."""

    def to_stored(self, obj: dict[str, Any]) -> dict[str, Any]:
        """From the served version."""
        ...

    def to_served(self, obj: dict[str, Any]) -> dict[str, Any]:
        """From the stored version."""
        ...


class RemoteConversion(Protocol):
    """The same by a server that has to be asked: the webhook of a custom resource. Raises InternalError where it
    fails.
    """

    async def served_all(self, resource: Resource, values: Sequence[bytes]) -> list[bytes]:
        """Stored bytes as the version that `resource` serves."""
        ...

    async def stored(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        """An object as the storage version."""
        ...

    async def convert(self, objects: list[dict[str, Any]], api_version: str) -> list[dict[str, Any]]:
        """Objects as any version."""
        ...


@dataclass(eq=False, slots=True)
class Resource:
    """One row: what clients know about a resource, and how it behaves."""

    kind: Kind
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = READ_WRITE
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    strategy: Strategy = None  # type: ignore[assignment]  # every row gets one when the table is built
    schema: Schema = None  # type: ignore[assignment]  # the same
    # Where it is stored: "pods", "deployments.apps". Empty: virtual, nothing is stored.
    storage: str = ""
    # The version that is stored; the same as `kind` except for rows that convert.
    storage_kind: Kind = None  # type: ignore[assignment]
    conversion: Conversion | None = None
    # Set where a webhook converts; then writes are judged as the served version.
    remote: RemoteConversion | None = None
    # Paths that a field selector may name, metadata.name and metadata.namespace included.
    selectable_fields: tuple[str, ...] = ("metadata.name", "metadata.namespace")
    # The paths whose values are kept beside every stored object, in order: the same for all rows that share a storage.
    extracted: tuple[str, ...] | None = None
    # Where among them the value of a selectable field stands.
    positions: Mapping[str, int] = field(default_factory=dict)
    # Whether some stored objects may still have the apiVersion of an earlier storage version.
    mixed_versions: bool = False
    # Set for custom resources (services.apiserver.crd): schema, columns, subresource paths.
    custom: Any = None
    # What callers are warned with; empty for what is not deprecated.
    deprecation: str = ""
    # The head of every stored object of this kind, up to the resourceVersion's first digit; see codec.py.
    head: bytes = b""

    def __post_init__(self) -> None:
        if self.storage_kind is None:
            self.storage_kind = self.kind
        if self.extracted is None:
            self.extracted = tuple(path for path in self.selectable_fields if not path.startswith("metadata.name"))
        if not self.positions:
            self.positions = {path: position for position, path in enumerate(self.extracted)}
        served = self.storage_kind
        self.head = (
            f'{{"apiVersion":"{served.api_version}","kind":"{served.kind}","metadata":{{"resourceVersion":"'.encode()
        )

    @property
    def as_stored(self) -> bool:
        """Whether the stored bytes are the ones to serve."""
        return self.kind == self.storage_kind and not self.mixed_versions and self.conversion is None

    @property
    def group(self) -> str:
        return self.kind.group

    @property
    def version(self) -> str:
        return self.kind.version

    @property
    def plural(self) -> str:
        return self.kind.plural

    @property
    def namespaced(self) -> bool:
        return self.kind.namespaced

    @property
    def virtual(self) -> bool:
        """Whether nothing is stored: reviews, bindings, component statuses."""
        return not self.storage

    def body_kind(self, subresource: str) -> Kind:
        """What is written to the object or a subresource of it."""
        found = self.subresources.get(subresource)
        return self.kind if found is None else found.kind

    def not_found(self, name: str) -> errors.NotFound:
        """The error that says that no object of this name exists."""
        return errors.not_found(self.group, self.plural, name)


GROUP_ORDER = (
    "", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io",
    "autoscaling", "batch",
    "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io",
    "discovery.k8s.io", "flowcontrol.apiserver.k8s.io", "resource.k8s.io", "storagemigration.k8s.io",
)  # fmt: skip
"""Upstream's order of groups in discovery: it decides which resource `kubectl get events` means. Custom groups follow
by name."""


class Registry:
    """All rows, by group, version and plural. Custom resources come and go at run time; `on_change` callbacks hear of
    it."""

    def __init__(self, rows: Iterable[Resource] = ()) -> None:
        self._rows: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._by_storage: dict[str, Resource] = {}
        # Group -> its versions, the preferred one first.
        self._versions: dict[str, list[str]] = {}
        self._on_change: list[Callable[[], None]] = []
        self._add(rows)

    def resolve(self, group: str, version: str, plural: str) -> Resource:
        """The row. An empty version means the group's preferred one that has this plural. Raises NotFound."""
        if version:
            row = self._rows.get((group, version, plural))
            if row is not None:
                return row
        else:
            for candidate in self._versions.get(group, ()):
                row = self._rows.get((group, candidate, plural))
                if row is not None:
                    return row
        raise errors.NotFound("the server could not find the requested resource")

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The row of exactly this version, or None."""
        return self._rows.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The row that serves this kind, if there is one."""
        return self._by_kind.get((api_version, kind))

    def by_storage(self, storage: str) -> Resource | None:
        """The row of the storage version of what is stored under this name."""
        return self._by_storage.get(storage)

    def all(self) -> Iterator[Resource]:
        """Every row, by group and version in order of preference, then by plural."""
        for group in self.groups():
            for version in self._versions[group]:
                yield from self.in_version(group, version)

    def in_version(self, group: str, version: str) -> list[Resource]:
        """The rows of one group and version by plural."""
        return sorted(
            (row for row in self._rows.values() if row.group == group and row.version == version),
            key=lambda row: row.plural,
        )

    def groups(self) -> list[str]:
        """The groups, in upstream's order; "" is the core group."""
        known = [group for group in GROUP_ORDER if group in self._versions]
        return known + sorted(set(self._versions) - set(known))

    def versions(self, group: str) -> list[str]:
        """A group's versions, the preferred one first."""
        return list(self._versions.get(group, ()))

    def replace_custom(self, group: str, plural: str, rows: Iterable[Resource]) -> None:
        """Serve these rows for a custom resource instead of what was served for it; none takes it away."""
        for key in [key for key in self._rows if key[0] == group and key[2] == plural]:
            row = self._rows.pop(key)
            self._by_kind.pop((row.kind.api_version, row.kind.kind), None)
            self._by_storage.pop(row.storage, None)
        self._add(rows)
        for callback in self._on_change:
            callback()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this whenever custom resources came or went (discovery and OpenAPI documents are built again)."""
        self._on_change.append(callback)

    def _add(self, rows: Iterable[Resource]) -> None:
        for row in rows:
            self._rows[row.group, row.version, row.plural] = row
            self._by_kind[row.kind.api_version, row.kind.kind] = row
            if row.storage and row.storage_kind == row.kind:
                self._by_storage[row.storage] = row
        served: dict[str, set[str]] = {}
        for group, version, _ in self._rows:
            served.setdefault(group, set()).add(version)
        self._versions = {
            group: sorted(versions, key=version_priority, reverse=True) for group, versions in served.items()
        }


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sorts as upstream's `CompareKubeAwareVersionStrings`: v2 > v1 > v1beta2 > v1beta1 > v1alpha1 > anything else."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (0, 0, 0, "".join(chr(0x10FFFF - ord(char)) for char in version))
    stage = {"alpha": 1, "beta": 2, None: 3}[match[2]]
    return (stage, int(match[1]), int(match[3] or 0), "")

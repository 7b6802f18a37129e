"""One write on its way from the handler to the store: what strategies and admission plugins are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from services.apiserver.lookup import Lookup
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Request, User, WriteOptions
from storage.store import Mutation

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(slots=True)
class WriteContext:
    """A write. `obj` is the object as it would be stored and belongs to the write: it is changed in place. It is of the
    storage version, or of the request's where a webhook converts (`conversion.judged`).

    `old` is what is stored now (None for CREATE), decoded for this write only; treat it as read-only.
    """

    req: Request
    operation: Operation
    obj: dict[str, Any]
    old: dict[str, Any] | None
    options: WriteOptions
    lookup: Lookup
    warnings: list[str] = field(default_factory=list)
    # What is committed with the object in one transaction: an allocated address, a port.
    extra: list[Mutation] = field(default_factory=list)
    # Whether managedFields were computed already (apply patches bring them).
    applied: bool = False

    @property
    def resource(self) -> Resource:
        return self.req.resource

    @property
    def subresource(self) -> str:
        return self.req.subresource

    @property
    def namespace(self) -> str:
        return self.req.namespace

    @property
    def user(self) -> User:
        return self.req.user

    @property
    def dry_run(self) -> bool:
        return self.options.dry_run

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = self.obj["metadata"]
        return metadata

    @property
    def name(self) -> str:
        """The object's name; empty while a generated one is not known yet."""
        name: str = self.req.name or self.obj["metadata"].get("name") or ""
        return name

    def spec(self) -> dict[str, Any]:
        """The object's spec; an empty one that is not part of the object if it has none."""
        return self.obj.get("spec") or {}

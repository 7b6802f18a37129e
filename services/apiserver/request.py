"""What a handler is asked, independent of the transport that brought it: who, which verb, on what, with which
options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from services.apiserver.large import Worker
    from services.apiserver.registry.resource import Resource

NO_EXTRA: dict[str, list[str]] = {}


class User(msgspec.Struct, frozen=True):
    """Who is asking, as authentication found out."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = NO_EXTRA


SYSTEM = User("system:apiserver", groups=("system:masters",))
"""The apiserver itself, for what it writes at start and on its own behalf."""


@dataclass(slots=True)
class Request:
    """One call. `verb` is get, list, watch, create, update, patch, delete or deletecollection."""

    user: User
    verb: str
    resource: Resource
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    user_agent: str = ""
    source_ip: str = ""
    audit_id: str = ""
    # For a person to read in an error or an audit line: "GET /api/v1/pods", "/cutaway.v1.ApiServer/List".
    path: str = ""
    # Whether `Handlers.authorize` has let this very request pass. A copy (`dataclasses.replace`) is judged anew.
    authorized: bool = field(default=False, init=False)
    # Who works on its documents, while it has a turn among the large requests (`services.apiserver.large`).
    worker: Worker | None = field(default=None, init=False)


@dataclass(slots=True)
class ListOptions:
    """As in the REST API. `resource_version_match` is "", "Exact" or "NotOlderThan"."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""


@dataclass(slots=True)
class WatchOptions:
    """As in the REST API. `resource_version` "" or "0" begin with the current state, N with the changes after N."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    # None: as `resource_version` implies. True: the current state, then a bookmark that says so, then changes.
    send_initial_events: bool | None = None
    allow_bookmarks: bool = False
    # 0: the server chooses, 30 to 60 minutes.
    timeout_seconds: float = 0


@dataclass(frozen=True, slots=True)
class Fence:
    """The leadership under which a write is made: the Lease must still have this `spec.leaseTransitions` when it
    commits, and be the one with this uid (empty: whichever has the name)."""

    namespace: str
    name: str
    epoch: int
    uid: str = ""


@dataclass(slots=True)
class WriteOptions:
    """How a mutation is judged. `field_validation` is "Ignore", "Warn" or "Strict"; empty means Warn."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""
    force: bool = False
    fence: Fence | None = None
    # Paths that the transport's decoder saw twice in one mapping: they count as unknown fields do.
    duplicate_fields: tuple[str, ...] = ()


@dataclass(slots=True)
class DeleteOptions:
    """How an object goes. `propagation_policy` is "", "Orphan", "Background" or "Foreground"."""

    grace_period_seconds: int | None = None
    propagation_policy: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False
    fence: Fence | None = None
    # The old spelling of Orphan (True) and Background (False).
    orphan_dependents: bool | None = None


@dataclass(slots=True)
class WriteResult:
    """A mutation's answer: the object as committed (as it would be, for a dry run)."""

    json: bytes
    created: bool = False
    warnings: list[str] = field(default_factory=list)
    # The store's revision of the object; 0 for virtual resources and dry runs.
    revision: int = 0


@dataclass(slots=True)
class DeleteResult:
    """The last state of what was deleted, or its state while its deletion goes on (`gone` False)."""

    json: bytes
    gone: bool
    revision: int = 0
    uid: str = ""

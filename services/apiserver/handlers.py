"""The verbs. Both transports, REST and gRPC, call these methods; nothing else reads or writes objects on a client's
behalf.

Every method first asks the authorizer; then reads are answered by `reads.Reader` from the watch cache, mutations by
`writes.Writer` and
`deletion.Deleter` through strategy, defaults, admission, validation and the store. Errors are those of
`machinery.api.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from machinery.api import errors
from services.apiserver.auth.attributes import Attributes, Decision
from services.apiserver.freshness import Freshness
from services.apiserver.request import (
    DeleteOptions,
    DeleteResult,
    ListOptions,
    Request,
    User,
    WatchOptions,
    WriteOptions,
    WriteResult,
)
from services.apiserver.watch_shares import WATCHES_MAX, WatchShares

if TYPE_CHECKING:
    from services.apiserver.deletion import Deleter
    from services.apiserver.reads import ListResult, Reader
    from services.apiserver.registry.resource import Registry
    from services.apiserver.watch_stream import WatchStream
    from services.apiserver.writes import Writer
    from storage.store import Event

COMPACT_PATH = "/compact"
"""What RBAC grants the right to forget history by: no REST endpoint serves it."""

PatchType = Literal["json", "merge", "strategic", "apply"]


class Authorizer(Protocol):
    """Judges whether a user may do something."""

    def authorize(self, attributes: Attributes) -> Decision:
        """The verdict, with a reason for a person."""
        ...


class Handlers:
    """The apiserver's verbs over one registry, cache and store."""

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        writer: Writer,
        deleter: Deleter,
        authorizer: Authorizer,
        watches_max: int = WATCHES_MAX,
    ) -> None:
        self.registry = registry
        self.authorizer = authorizer
        self._reader = reader
        self._writer = writer
        self._deleter = deleter
        self.large = writer.large
        self._watches = WatchShares(watches_max)
        self.freshness = Freshness(reader.cache)

    def authorize(self, req: Request, field_selector: str = "") -> None:
        """Raise Forbidden unless the user may do this. Every verb below calls it; transports do for what they serve
        themselves."""
        if req.authorized and not field_selector:
            return
        resource = req.resource
        # As upstream: a Role inside a namespace can grant what is done to the namespace itself.
        namespace = req.name if resource.storage == "namespaces" else req.namespace
        decision = self.authorizer.authorize(
            Attributes(
                user=req.user, verb=req.verb, group=resource.group, version=resource.version, resource=resource.plural,
                subresource=req.subresource, namespace=namespace, name=req.name, field_selector=field_selector,
            )
        )  # fmt: skip
        if not decision.allowed:
            raise forbidden(req, decision.reason)
        if req.subresource:
            offered = resource.subresources.get(req.subresource)
            if offered is None:
                raise errors.NotFound("the server could not find the requested resource")
            verbs = offered.verbs
        else:
            verbs = resource.verbs
        # What is passed on to a back end may be by a method that is no verb of the API (OPTIONS).
        if req.verb not in verbs and not (req.subresource == "proxy" and not req.verb):
            raise errors.MethodNotAllowed("the server does not allow this method on the requested resource")
        req.authorized = not field_selector

    async def get(self, req: Request, resource_version: str = "", at_revision: int = 0) -> bytes:
        """The object's JSON; subresource "status" answers the object, "scale" its Scale.

        `at_revision` answers it as of that retained revision. Raises NotFound, Expired.
        """
        self.authorize(req)
        if not at_revision:
            await self.be_fresh(resource_version)
        return await self._reader.get(req, resource_version, at_revision)

    async def history(self, req: Request, limit: int, at_revision: int) -> Sequence[Event]:
        """The retained writes of one object, newest first; who may get it may know its past. Raises NotFound."""
        self.authorize(req)
        await self.freshness.confirm()
        return await self._reader.history(req, limit, at_revision)

    async def compact(self, user: User, revision: int) -> tuple[int, int]:
        """Forget history before a revision (0: the newest); where it begins now, and how many log entries went.

        Raises Forbidden, BadRequest (a revision that has not happened).
        """
        decision = self.authorizer.authorize(Attributes(user=user, verb="post", path=COMPACT_PATH))
        if not decision.allowed:
            raise errors.Forbidden(f'User "{user.name}" cannot post path "{COMPACT_PATH}"')
        return await self._reader.compact(revision)

    def follow(self, user: User, after_revision: int) -> AsyncIterator[tuple[int, Sequence[Event]]]:
        """Every write after a revision (0: from now on) by whomever, of every resource. Raises Forbidden, Expired,
        BadRequest (a revision that has not happened)."""
        if not self.authorizer.authorize(Attributes(user=user, verb="watch", group="*", resource="*")).allowed:
            raise errors.Forbidden(
                f'User "{user.name}" cannot watch resource "*" in API group "*" at the cluster scope'
            )
        return self._reader.follow(after_revision)

    async def list(self, req: Request, options: ListOptions) -> ListResult:
        """The objects that the selectors choose, as of one revision; the transport splices their JSON. Raises
        BadRequest, Expired."""
        self.authorize(req, options.field_selector)
        if not options.continue_token:
            await self.be_fresh(options.resource_version)
        return await self._reader.convert(req.resource, await self._reader.list(req, options))

    async def be_fresh(self, resource_version: str) -> None:
        """Before a read without a resourceVersion: see what any apiserver has acknowledged. Raises ServiceUnavailable.

        `get` and `list` call it themselves; before `watch`, which judges at once, transports do."""
        if not resource_version:
            await self.freshness.confirm()

    def watch(self, req: Request, options: WatchOptions) -> WatchStream:
        """Batches of events, for ever or until `timeout_seconds` have passed.

        Authorization and options are judged by this call, before the first batch is asked for: a transport can still
        answer 403, 400 or 410. The iterator raises Expired when the watcher has fallen too far behind. Close it
        (`aclose`) when the client goes. Raises TooManyRequests if the user has its share of all watches.
        """
        self.authorize(req, options.field_selector)
        give_back = self._watches.take(req.user.name)
        try:
            stream = self._reader.watch(req, options)
        except BaseException:
            give_back()
            raise
        stream.on_close = give_back
        return stream

    async def create(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Create an object, or post to a subresource (binding, eviction, token) of `req.name`.

        `body` is decoded JSON and becomes the handler's: it may be changed.
        """
        self.authorize(req)
        # What is written is judged by what is there: a namespace, a quota, the object itself.
        if not req.resource.virtual:
            await self.freshness.confirm()
        return await self._writer.create(req, body, options)

    async def update(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Replace an object or a subresource of it (status, scale, approval, finalize, ephemeralcontainers, resize)."""
        self.authorize(req)
        await self.freshness.confirm()
        return await self._writer.update(req, body, options)

    async def patch(self, req: Request, patch_type: PatchType, patch: Any, options: WriteOptions) -> WriteResult:
        """Change part of an object. `patch` is decoded: a list for "json", a mapping for the others.

        "apply" creates what does not exist. Raises Conflict if the object keeps changing underneath, or on apply
        conflicts.
        """
        self.authorize(req)
        await self.freshness.confirm()
        return await self._writer.patch(req, patch_type, patch, options)

    async def delete(self, req: Request, options: DeleteOptions) -> DeleteResult:
        """Delete an object, or begin its graceful deletion."""
        self.authorize(req)
        await self.freshness.confirm()
        return await self._deleter.delete(req, options)

    async def admit_connect(self, req: Request, body: dict[str, Any]) -> None:
        """Judge a stream into a pod, Service or node (exec, attach, portforward, proxy), once it is authorized and
        before it begins.

        `body` is the options object of the subresource, such as a PodExecOptions. Raises what admission refuses with.
        """
        await self._writer.admit_connect(req, body)

    async def delete_collection(
        self, req: Request, options: ListOptions, delete_options: DeleteOptions
    ) -> Sequence[DeleteResult]:
        """Delete what the selectors choose, each as `delete` does."""
        self.authorize(req, options.field_selector)
        await self.freshness.confirm()
        return await self._deleter.delete_collection(req, options, delete_options)


def forbidden(req: Request, reason: str) -> errors.Forbidden:
    """Upstream's sentence: `pods "web" is forbidden: User "jane" cannot get resource "pods" in API group "" in the
    namespace "default"`."""
    resource = req.resource.plural + (f"/{req.subresource}" if req.subresource else "")
    namespace = req.name if req.resource.storage == "namespaces" else req.namespace
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    why = f'User "{req.user.name}" cannot {req.verb} resource "{resource}" in API group "{req.resource.group}" {where}'
    return errors.forbidden(req.resource.group, req.resource.plural, req.name, f"{why}: {reason}" if reason else why)

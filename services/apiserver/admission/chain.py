"""The admission chain: every plugin that cares about a write, first those that may change it, then those that judge the
result."""

from __future__ import annotations

from collections.abc import Sequence

from services.apiserver.write_context import WriteContext


class Plugin:
    """One admission plugin. `resources` are the storages that it cares about; empty means all."""

    resources: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset(("CREATE", "UPDATE"))
    # The subresources that it cares about; "" is the object itself.
    subresources: frozenset[str] = frozenset(("",))

    def cares(self, ctx: WriteContext) -> bool:
        """Whether the write is this plugin's business."""
        return (
            ctx.operation in self.operations
            and ctx.subresource in self.subresources
            and (not self.resources or ctx.resource.storage in self.resources)
        )

    def mutate(self, ctx: WriteContext) -> None:
        """Change `ctx.obj`, or refuse."""

    def validate(self, ctx: WriteContext) -> None:
        """Refuse, or let pass."""


class AsyncPlugin(Plugin):
    """A plugin that has to ask someone else: webhooks."""

    async def mutate_async(self, ctx: WriteContext) -> bool:
        """As `mutate`; whether it changed anything."""
        return False

    async def validate_async(self, ctx: WriteContext) -> None:
        """As `validate`."""


class _Caring:
    """The plugins that care about one kind of write: each half of the chain has those that do something there."""

    __slots__ = ("judging", "mutating")

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.mutating = tuple(
            (plugin, plugin if isinstance(plugin, AsyncPlugin) else None)
            for plugin in plugins
            if _does(plugin, "mutate") or _does(plugin, "mutate_async")
        )
        self.judging = tuple(
            (plugin, plugin if isinstance(plugin, AsyncPlugin) else None)
            for plugin in plugins
            if _does(plugin, "validate") or _does(plugin, "validate_async")
        )


def _does(plugin: Plugin, method: str) -> bool:
    """Whether the plugin has a method of its own there."""
    own = getattr(type(plugin), method, None)
    return own is not None and own is not getattr(AsyncPlugin, method)


class Chain:
    """Plugins in order. The plugins that care are found once for each kind of write and remembered."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = tuple(plugins)
        self._caring: dict[tuple[str, str, str], _Caring] = {}

    def _for(self, ctx: WriteContext) -> _Caring:
        req = ctx.req
        key = (ctx.operation, req.resource.storage or req.resource.plural, req.subresource)
        caring = self._caring.get(key)
        if caring is None:
            caring = self._caring[key] = _Caring([plugin for plugin in self._plugins if plugin.cares(ctx)])
        return caring

    async def mutate(self, ctx: WriteContext) -> bool:
        """Run the changing half; whether an outside plugin changed the object (it must be defaulted and checked
        again)."""
        changed = False
        for plugin, outside in self._for(ctx).mutating:
            plugin.mutate(ctx)
            if outside is not None:
                changed |= await outside.mutate_async(ctx)
        return changed

    async def validate(self, ctx: WriteContext) -> None:
        """Run the judging half."""
        for plugin, outside in self._for(ctx).judging:
            plugin.validate(ctx)
            if outside is not None:
                await outside.validate_async(ctx)

"""Controllers that die with their k-th write, and controllers that see an old state: the same end each time.

A scenario says which controllers run, what happens to the cluster, and what must be true in the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from tests.support.controllers import ControllerLab
from tests.support.torture import FULL, figure

STEP = 1 if FULL else 2
WRITES_MAX = 40


def obj(api_version: str, kind: str, name: str, namespace: str = "default", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, **parts.pop("metadata", {})}
    found = kinds.find(api_version, kind)
    assert found is not None
    if not found.namespaced:
        del metadata["namespace"]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


@dataclass(frozen=True)
class Scenario:
    controllers: tuple[str, ...]
    begin: Callable[[ControllerLab], Awaitable[None]]
    done: Callable[[ControllerLab], Any]
    kubelet: bool = True
    # Fewer writes than two make no crash in between: then only the crash before the first one is tried.
    crashes_min: int = 2
    config: dict[str, Any] = field(default_factory=dict)


class Scenarios(dict[str, Scenario]):
    """By name; `scenario` registers the function that begins one."""

    def scenario(self, *controllers: str, done: Callable[[ControllerLab], Any], **more: Any) -> Callable[[Any], Any]:
        def register(begin: Callable[[ControllerLab], Awaitable[None]]) -> Any:
            self[begin.__name__] = Scenario(controllers, begin, done, **more)
            return begin

        return register


async def crash_after_any_write(name: str, chosen: Scenario) -> None:
    """Crash after write k, for every k there is; start anew; the end must be the scenario's."""
    crashes = 0
    for writes in range(0, WRITES_MAX, STEP):
        async with ControllerLab(*chosen.controllers, kubelet=chosen.kubelet, **chosen.config) as lab:
            lab.crash_after(writes)
            await chosen.begin(lab)
            await lab.until(lambda: lab.crashed or chosen.done(lab), f"{name}: neither crashed nor done")
            if not lab.crashed:
                break
            crashes += 1
            await lab.restart()
            await lab.until(lambda: chosen.done(lab), f"{name}: the right end after a crash at write {writes}")
            await lab.quiet(0.05)
            assert chosen.done(lab), f"{name}: stays right after a crash at write {writes}"
    figure(7, f"{name}: crashed after {crashes} different writes, the same end each time")
    assert crashes >= (chosen.crashes_min if STEP == 1 else 1), "the scenario writes too little to be a test"


async def stand_still(name: str, chosen: Scenario, kind: Kind, most: int) -> None:
    """While the controllers see no change of a kind, there are never more than so many; and the end is right."""
    async with ControllerLab(*chosen.controllers, kubelet=chosen.kubelet, **chosen.config) as lab:
        lab.freeze(kind)
        await chosen.begin(lab)
        for _ in range(15):
            await lab.resync()
        assert len(lab.list(kind)) <= most
        lab.thaw(kind)
        await lab.until(lambda: chosen.done(lab), f"{name}: the right end after a stale cache")
        await lab.quiet(0.05)
        assert chosen.done(lab)
        assert len(lab.list(kind)) <= most

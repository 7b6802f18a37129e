"""A control plane in one event loop for tests of controllers: an apiserver, chosen controllers, and nodes that only say
they run pods.

    async with ControllerLab("deployment", "replicaset") as lab:
        await lab.create(deployment("web", replicas=3))
        await lab.until(lambda: len(lab.ready_pods()) == 3)

`crash_at` and `freeze` are the two ways to be unkind: the controllers die with their k-th write, or one kind's watch
stops telling.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.client.fake import FakeApiServer
from services.controller_manager.config import ControllerManagerConfig
from services.controller_manager.manager import Manager

_WRITES = ("Create", "Update", "Patch", "Delete", "DeleteCollection")


class Crash(Exception):
    """The controllers died."""


class ControllerLab:
    """One cluster without a kubelet or a scheduler: `kubelet` binds pods and makes them ready if it is asked to."""

    def __init__(self, *controllers: str, kubelet: bool = True, nodes: int = 2, **config: Any) -> None:
        self.server = FakeApiServer()
        self.config = ControllerManagerConfig(name="controller-manager", controllers=list(controllers), **config)
        self.kubelet = kubelet
        self.nodes = nodes
        self.client: ApiClient
        self.manager: Manager
        self.writes = 0
        self.crash_at: int | None = None
        self.faults: list[Callable[[str, Any], errors.ApiError | None]] = []
        self._manager_client: ApiClient
        self._tasks: list[asyncio.Task[Any]] = []
        self._leading: asyncio.Task[None] | None = None
        self._addresses = itertools.count(2)
        self._crashed = asyncio.Event()
        self._held: dict[Kind, list[Any]] = {}

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.client = await self.server.client("test")
        self._manager_client = await self.server.client("controllers")
        self.server.intercept = self._intercept
        for name in ("default", "kube-system", "kube-node-lease"):
            await self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
                               "spec": {"finalizers": ["kubernetes"]}})  # fmt: skip
        for number in range(self.nodes):
            await self.add_node(f"n{number + 1}")
        if self.kubelet:
            self._tasks.append(asyncio.create_task(self._run_kubelet(), name="kubelet"))
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.__aexit__()

    async def start(self) -> None:
        """Start the controllers, as a new process would."""
        self.manager = Manager(self.config, self._manager_client, "test")
        self._crashed = asyncio.Event()
        self._leading = asyncio.create_task(self._lead(), name="controllers")
        while not self.manager.synced:
            await asyncio.sleep(0.005)
            if self._leading.done():
                self._leading.result()

    async def _lead(self) -> None:
        await self.manager.lead(None)

    async def stop(self) -> None:
        """Kill the controllers: nothing of what they know survives."""
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
            self._leading = None

    def crash_after(self, writes: int) -> None:
        """Let the controllers die with their k-th write from now on: it is done, and they never learn that."""
        self.writes, self.crash_at = 0, writes

    @property
    def crashed(self) -> bool:
        """Whether they are dead."""
        return self._crashed.is_set()

    async def restart(self) -> None:
        """Kill the controllers, if a crash has not done so, and start anew."""
        self.crash_at = None
        await self.stop()
        await self.start()

    def _intercept(self, method: str, request: Any) -> errors.ApiError | None:
        for fault in self.faults:
            if (error := fault(method, request)) is not None:
                return error
        # Users and kubelets here change the state itself: every call that writes is a controller's.
        name = method.rpartition(".")[2]
        write = name[0].upper() + name[1:]
        if self.crash_at is None or write not in _WRITES or _is_event(request):
            return None
        self.writes += 1
        if self.writes <= self.crash_at:
            return None
        self._crashed.set()
        return errors.ServiceUnavailable("the process is gone")

    # --- stale caches -------------------------------------------------------------------------------------------------

    def freeze(self, kind: Kind) -> None:
        """Let the controllers see no change of a kind until `thaw`."""
        informer = self._informer(kind)
        held = self._held.setdefault(kind, [])
        informer._apply = held.append

    async def known(self, kind: Kind, count: int) -> None:
        """Wait until the controllers have seen so many objects of a kind: what is frozen before stays unknown."""
        await self.until(lambda: len(self._informer(kind).lister) >= count, f"{count} {kind.plural} known")

    def thaw(self, kind: Kind) -> None:
        """Let them see all that happened meanwhile."""
        informer = self._informer(kind)
        del informer._apply
        for batch in self._held.pop(kind):
            informer._apply(batch)

    def _informer(self, kind: Kind) -> Any:
        return next(iter(self.manager.controllers.values())).informers.of(kind)

    async def resync(self) -> None:
        """Have every controller look at everything again, and let it."""
        for controller in self.manager.controllers.values():
            for key in [*controller.keys()]:
                controller.add(key)
        await asyncio.sleep(0.02)

    # --- objects ------------------------------------------------------------------------------------------------------

    async def create(self, obj: dict[str, Any]) -> Any:
        """Create any object; the namespace is `default` unless it says another."""
        kind = kinds.find(obj["apiVersion"], obj["kind"])
        assert kind is not None
        namespace = obj["metadata"].get("namespace", "default") if kind.namespaced else ""
        out = self.server.state.create(kind, namespace, obj)
        self.server.notify()
        return out

    async def patch(self, kind: Kind, name: str, patch: dict[str, Any], namespace: str = "default", **rest: Any) -> Any:
        """Merge-patch an object, as a user."""
        out = self.server.state.patch(
            kind, namespace if kind.namespaced else "", name, 2, objects.encode(patch), rest.get("subresource", ""),
            dry_run=False,
        )  # fmt: skip
        self.server.notify()
        return out

    async def delete(self, kind: Kind, name: str, namespace: str = "default", **options: Any) -> None:
        """Delete an object, as a user."""
        self.server.state.delete(kind, namespace if kind.namespaced else "", name, **options)
        self.server.notify()

    def get(self, kind: Kind, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """An object as it is stored, or None."""
        try:
            return self.server.state.get(kind, namespace if kind.namespaced else "", name)
        except errors.NotFound:
            return None

    def list(self, kind: Kind, namespace: str = "") -> list[dict[str, Any]]:
        """All objects of a kind."""
        return self.server.state.list(kind, namespace, lambda obj: True)

    async def add_node(self, name: str) -> None:
        """A node that is ready."""
        now = objects.now_rfc3339()
        await self.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
        )
        conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}]
        await self.patch(kinds.NODE, name, {"status": {"conditions": conditions}}, subresource="status")

    # --- pods ---------------------------------------------------------------------------------------------------------

    def pods(self, namespace: str = "") -> list[dict[str, Any]]:
        """Pods that have not ended and are not being deleted."""
        return [
            pod
            for pod in self.list(kinds.POD, namespace)
            if not pod["metadata"].get("deletionTimestamp")
            and pod["status"].get("phase") not in ("Failed", "Succeeded")
        ]

    def ready_pods(self) -> list[dict[str, Any]]:
        """Pods that are ready."""
        return [pod for pod in self.pods() if is_ready(pod)]

    async def set_pod(self, name: str, namespace: str = "default", **status: Any) -> None:
        """Change a pod's status, as its kubelet."""
        await self.patch(kinds.POD, name, {"status": status}, namespace, subresource="status")

    async def _run_kubelet(self) -> None:
        async for batch in self.client.watch(kinds.POD, decode=objects.decode_dict):
            for event, pod in batch.events:
                if event != "DELETED":
                    with contextlib.suppress(errors.ApiError):
                        await self._sync_pod(pod)

    async def _sync_pod(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        key = (kinds.POD, meta["namespace"], meta["name"])
        state = self.server.state
        if meta.get("deletionTimestamp"):
            state.delete(*key, grace=0, uid=meta["uid"])
        elif not pod["spec"].get("nodeName"):
            nodes = self.list(kinds.NODE)
            if nodes:
                number = sum(map(ord, meta["name"])) % len(nodes)
                target = {"target": {"name": nodes[number]["metadata"]["name"]}}
                state.create_subresource(*key, "binding", target, dry_run=False)
        elif pod["status"].get("phase") == "Pending" and "hold" not in (meta.get("labels") or {}):
            status = ready_status(f"10.244.0.{next(self._addresses) % 250}")
            if ended := (meta.get("labels") or {}).get("ends"):
                status = {"phase": ended}
            state.patch(*key, 2, objects.encode({"status": status}), "status", dry_run=False)
        self.server.notify()

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str = "", timeout: float = 10.0) -> None:
        """Wait until the condition holds."""
        try:
            async with asyncio.timeout(timeout):
                # Each condition looks at the state itself, which has no event of its own.
                while not condition():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"never: {what or condition}") from None

    async def quiet(self, seconds: float = 0.3) -> None:
        """Wait until nothing was written (but events) for that long."""
        last, since = -1, 0.0
        loop = asyncio.get_running_loop()
        while True:
            revision = max((c.revision for c in self.server.state.log if c.kind != kinds.EVENT), default=0)
            if revision != last:
                last, since = revision, loop.time()
            elif loop.time() - since >= seconds:
                return
            await asyncio.sleep(0.02)

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Recorded events of that reason."""
        return [event for event in self.list(kinds.EVENT) if event["reason"] == reason]


def _is_event(request: Any) -> bool:
    return getattr(request, "resource", None) is not None and request.resource.resource == "events"


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod says it is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def ready_status(ip: str = "10.244.0.9", since: str = "") -> dict[str, Any]:
    """The status of a pod that runs and is ready."""
    moment = since or objects.now_rfc3339()
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": moment}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
    }


def deployment(name: str = "web", replicas: int = 3, image: str = "nginx:1", **spec: Any) -> dict[str, Any]:
    """A Deployment with upstream's defaults filled in."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template({"app": name}, image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **copy.deepcopy(spec),
        },
    }


def pod_template(labels: dict[str, str], image: str = "nginx:1", **spec: Any) -> dict[str, Any]:
    """A pod template of one container."""
    container = {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}
    return {"metadata": {"labels": dict(labels)}, "spec": {"containers": [container], **spec}}


def at(seconds: float) -> datetime:
    """A moment that many seconds after the epoch of these tests."""
    return datetime.fromtimestamp(1_800_000_000 + seconds, UTC)

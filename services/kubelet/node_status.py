"""The Node object: registered, its status kept true, its lease renewed.

A status is sent when something in it changed, and every five minutes besides; that the node is alive is told by its
lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.api.objects import now_rfc3339
from machinery.api.quantity import parse_quantity
from machinery.client.api_client import ApiClient, PatchType
from machinery.component import logs
from services.kubelet import node_events, node_info
from services.kubelet.config import KubeletConfig
from services.kubelet.runtime import Runtime, RuntimeFailure

Json = dict[str, Any]
log = logs.get("kubelet")

VERSION = "v1.37.0"
GRPC_ANNOTATION = "cutaway.dev/kubelet-grpc"
_IMAGES_MAX = 50
_NOT_READY_SECONDS = 0.25  # how often a node that is not ready is looked at: it should be ready the moment it can
_RETRY_SECONDS = 1.0


class NodeStatus:
    """One node's object. `run` it in a TaskGroup."""

    def __init__(
        self,
        config: KubeletConfig,
        client: ApiClient,
        runtime: Runtime,
        *,
        name: str,
        ips: tuple[str, ...],
        grpc_address: str,
        https_port: int,
        pressures: Callable[[], dict[str, bool]] = dict,
        runtime_healthy: Callable[[], bool] = lambda: True,
        shutdown: Callable[[], str] = str,
        apply_pod_cidr: bool = True,
        event: Callable[[str, str, str], None] = lambda kind, reason, message: None,
    ) -> None:
        self._config = config
        self._client = client
        self._runtime = runtime
        self._name = name
        self._ips = ips
        self._grpc_address = grpc_address
        self._https_port = https_port
        self._pressures = pressures
        self._runtime_healthy = runtime_healthy
        self._shutdown = shutdown
        self._apply_pod_cidr = apply_pod_cidr
        self._event = event
        self._sent: Json = {}
        self._sent_at = 0.0
        self._wake = asyncio.Event()
        self._cidr = ""
        self._runtime_version = ""
        self._features: Json = {}
        self._images: list[Json] = []
        self._images_at = -1e9
        self.registered = asyncio.Event()
        self.ready = False
        self.labels: dict[str, str] | None = None
        # The Node object's; empty while there is none.
        self.uid = ""
        self.capacity = node_info.capacity(config.root_dir, config.max_pods, config.capacity)
        self.allocatable = allocatable(self.capacity, config)

    def wake(self) -> None:
        """Look at the status now."""
        self._wake.set()

    def node_changed(self, _old: core_v1.Node | None, new: core_v1.Node | None) -> None:
        """The Node object changed: a pod CIDR may have been given; a deleted one is registered again."""
        self.uid = new.metadata.uid or "" if new is not None else ""
        if new is None:
            self.registered.clear()
            self._sent = {}
            self.wake()
            return
        self.labels = new.metadata.labels or {}
        if self._sent and _judged(new) not in ("", _ready(self._sent)):
            # While nothing was heard of this node somebody else wrote what became of it: what we said last is not what
            # is there, so it is said again.
            self._sent = {}
            self.wake()
        cidr = (new.spec.podCIDR if new.spec else None) or ""
        if cidr and cidr != self._cidr:
            self._cidr = cidr
            self.wake()

    async def run(self) -> None:
        """Register, then keep the status true."""
        applied = ""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                if not self.registered.is_set():
                    await self._register()
                # Not ready: it may be another runtime by now, which was never told.
                if self._apply_pod_cidr and (self._cidr != applied or (self._cidr and not self.ready)):
                    await self._runtime.set_pod_cidr(self._cidr)
                    applied = self._cidr
                status = await self._status()
                changed = without_heartbeats(status) != without_heartbeats(self._sent)
                if changed or loop.time() - self._sent_at > self._config.status_report_seconds:
                    await self._send(status)
            except (errors.ApiError, RuntimeFailure) as error:
                log.warning("node status could not be told, trying again", error=str(error))
                if isinstance(error, errors.NotFound):
                    self.registered.clear()
                await self._pause(_RETRY_SECONDS)
                continue
            await self._pause(self._config.status_seconds if self.ready else _NOT_READY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- registration

    async def _register(self) -> None:
        config = self._config
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": node_info.architecture(),
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": node_info.architecture(),
            **config.node_labels,
        }
        annotations = {
            GRPC_ANNOTATION: self._grpc_address,
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        }
        spec: Json = {"taints": [parse_taint(text) for text in config.node_taints]} if config.node_taints else {}
        if config.provider_id:
            spec["providerID"] = config.provider_id
        status = await self._status()
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": labels, "annotations": annotations},
            "spec": spec,
            "status": status,
        }
        try:
            if config.register_node:
                await self._client.create(kinds.NODE, node)
                log.info("node registered", node=self._name)
        except errors.AlreadyExists:
            current = await self._client.get(kinds.NODE, self._name)
            # Before the status is looked at again: what has not changed keeps its time of transition.
            self._sent = msgspec.to_builtins(current.status) if current.status else {}
            patch: Json = {"metadata": {"annotations": annotations, "labels": labels}}
            await self._client.patch(kinds.NODE, self._name, "", patch)
            self._cidr = (current.spec.podCIDR if current.spec else None) or self._cidr
            await self._send(await self._status())
        else:
            self._tell({}, status)
        self.registered.set()

    # --- status

    async def _status(self) -> Json:
        addresses = [{"type": "InternalIP", "address": ip} for ip in self._ips]
        addresses.append({"type": "Hostname", "address": self._name})
        conditions = await self._conditions()
        if self.ready:
            # Every time: another runtime may have taken the place of the one before.
            self._runtime_version = await self._ask_version() or self._runtime_version
        return {
            "capacity": self.capacity,
            "allocatable": self.allocatable,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._https_port}},
            "nodeInfo": dict(node_info.node_info(self._runtime_version or "containerd://unknown", VERSION)),
            "images": await self._image_list(),
            "conditions": conditions,
            **self._features,
        }

    async def _ask_version(self) -> str:
        try:
            answer = await self._runtime.version()
        except RuntimeFailure:
            return ""
        return f"{answer.runtime_name}://{answer.runtime_version}"

    async def _image_list(self) -> list[Json]:
        loop = asyncio.get_running_loop()
        if loop.time() - self._images_at < 60 or not self.ready:
            return self._images
        self._images_at = loop.time()
        try:
            images = await self._runtime.images()
        except RuntimeFailure:
            return self._images
        self._images = [
            {"names": [*image.repo_digests, *image.repo_tags], "sizeBytes": image.size}
            for image in sorted(images, key=lambda i: -i.size)[:_IMAGES_MAX]
        ]
        return self._images

    async def _conditions(self) -> list[Json]:
        now = now_rfc3339()
        pressures = self._pressures()
        wanted = [
            ("MemoryPressure", pressures.get("memory", False), "KubeletHasInsufficientMemory",
             "kubelet has insufficient memory available", "KubeletHasSufficientMemory",
             "kubelet has sufficient memory available"),
            ("DiskPressure", pressures.get("disk", False), "KubeletHasDiskPressure", "kubelet has disk pressure",
             "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", pressures.get("pid", False), "KubeletHasInsufficientPID",
             "kubelet has insufficient PID available", "KubeletHasSufficientPID",
             "kubelet has sufficient PID available"),
        ]  # fmt: skip
        conditions = [
            {"type": kind, "status": "True" if on else "False", "reason": on_reason if on else off_reason,
             "message": on_text if on else off_text}
            for kind, on, on_reason, on_text, off_reason, off_text in wanted
        ]  # fmt: skip
        problem = await self._problem()
        self.ready = not problem
        conditions.append(
            {
                "type": "Ready",
                "status": "False" if problem else "True",
                "reason": "KubeletNotReady" if problem else "KubeletReady",
                "message": problem or "kubelet is posting ready status",
            }
        )
        before = {c["type"]: c for c in self._sent.get("conditions") or ()}
        for condition in conditions:
            old = before.get(condition["type"])
            same = old is not None and old.get("status") == condition["status"]
            condition["lastHeartbeatTime"] = now
            condition["lastTransitionTime"] = (old or {}).get("lastTransitionTime") or now if same else now
        return conditions

    async def _problem(self) -> str:
        """Why the node can't run pods; empty if it can."""
        try:
            answer = await self._runtime.status()
        except RuntimeFailure as error:
            return f"container runtime is down: {error.message}"
        self._features = features(answer)
        texts = []
        for condition in answer.status.conditions:
            if not condition.status and condition.type in ("RuntimeReady", "NetworkReady"):
                texts.append(_condition_text(condition))
        if not texts and not self._runtime_healthy():
            texts.append("PLEG is not healthy: the last relist failed")
        if self._shutdown():
            texts.append(self._shutdown())
        return "; ".join(texts)

    async def _send(self, status: Json) -> None:
        if not self.registered.is_set() and not self._sent:
            return
        await self._client.patch(
            kinds.NODE, self._name, "", {"status": status}, type=PatchType.STRATEGIC, subresource="status"
        )
        self._tell(self._sent, status)
        self._sent = status
        self._sent_at = asyncio.get_running_loop().time()

    def _tell(self, before: Json, after: Json) -> None:
        for event in node_events.happened(self._name, before, after):
            self._event(*event)


def _judged(node: core_v1.Node) -> str:
    """The status of the object's Ready condition; empty if it has none."""
    conditions = (node.status.conditions if node.status else None) or ()
    return next((condition.status for condition in conditions if condition.type == "Ready"), "")


def _ready(status: Json) -> str:
    return next((str(c["status"]) for c in status.get("conditions") or () if c["type"] == "Ready"), "")


def features(answer: cri.StatusResponse) -> Json:
    """What the runtime says that it can do, as the Node's status has it."""
    out: Json = {}
    if answer.runtime_handlers:
        out["runtimeHandlers"] = [
            {
                "name": handler.name,
                "features": {
                    "recursiveReadOnlyMounts": handler.features.recursive_read_only_mounts,
                    "userNamespaces": handler.features.user_namespaces,
                },
            }
            for handler in answer.runtime_handlers
        ]
    if answer.HasField("features"):
        out["features"] = {"supplementalGroupsPolicy": answer.features.supplemental_groups_policy}
    return out


def _condition_text(condition: cri.RuntimeCondition) -> str:
    what = "container runtime network not ready" if condition.type == "NetworkReady" else "container runtime not ready"
    return f"{what}: {condition.type}=false reason:{condition.reason} message:{condition.message}"


def without_heartbeats(status: Json) -> Json:
    """The status without what changes every time."""
    conditions = [
        {k: v for k, v in c.items() if k not in ("lastHeartbeatTime", "lastTransitionTime")}
        for c in status.get("conditions") or ()
    ]
    return {**status, "conditions": conditions}


def for_pods(capacity: dict[str, str], config: KubeletConfig) -> dict[str, str]:
    """Capacity less what is reserved: what the cgroup of all pods gets."""
    out = dict(capacity)
    for name, reserved in config.system_reserved.items():
        if name in out:
            out[name] = str(parse_quantity(out[name]) - parse_quantity(reserved))
    return out


def allocatable(capacity: dict[str, str], config: KubeletConfig) -> dict[str, str]:
    """Capacity less what is reserved and less the memory below which pods are evicted."""
    out = for_pods(capacity, config)
    threshold = config.eviction_hard.get("memory.available", "")
    if threshold and not threshold.endswith("%"):
        left = parse_quantity(out["memory"]).value - parse_quantity(threshold).value
        out["memory"] = f"{max(0, left) // 1024}Ki"
    storage = config.eviction_hard.get("nodefs.available", "")
    if storage.endswith("%"):
        left = parse_quantity(out["ephemeral-storage"]).value * (100 - int(float(storage[:-1]))) // 100
        out["ephemeral-storage"] = str(left)
    return out


def parse_taint(text: str) -> Json:
    """`key=value:Effect` or `key:Effect`."""
    head, _, effect = text.rpartition(":")
    key, _, value = head.partition("=")
    taint: Json = {"key": key, "effect": effect}
    if value:
        taint["value"] = value
    return taint

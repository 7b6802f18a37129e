"""The pods of this node.

A worker for each that is bound here, adoption of what already runs, an end for what belongs to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any

from lightkube.models import core_v1, meta_v1

from machinery.client.informer import Informer
from machinery.component import logs
from services.kubelet import admission, pod_spec
from services.kubelet.node import Node
from services.kubelet.pod_worker import PodWorker
from services.kubelet.runtime_state import PodRuntime
from services.kubelet.status import Verdict

log = logs.get("kubelet")

# What a pod still gets whose object is gone: as upstream gives it, so that a SIGTERM comes before the SIGKILL.
_FORCED_GRACE_SECONDS = 1


class Pods:
    """Keeps one worker a pod. Pods come from the apiserver and from manifests on this node, by uid."""

    def __init__(self, node: Node, max_pods: int = 110, unsafe_sysctls: Iterable[str] = ()) -> None:
        self._node = node
        node.active_pods = self.active
        self._max_pods = max_pods
        self._unsafe_sysctls = tuple(unsafe_sysctls)
        self.workers: dict[str, PodWorker] = {}
        self._pods: dict[str, core_v1.Pod] = {}
        self._known_at_start: set[str] = set()
        self._ready = asyncio.Event()
        self.informer: Informer[Any] | None = None
        # Why no new pod is taken, while that is so.
        self.refusal: admission.Refusal | None = None
        # What the node lacks now.
        self.pressures: Callable[[], Collection[str]] = lambda: ()

    # --- desired state

    def follow(self, informer: Informer[Any]) -> None:
        """Take the node's pods from an informer that selects them by `spec.nodeName`."""
        self.informer = informer
        informer.add_handler(self.on_change)

    def on_change(self, old: core_v1.Pod | None, new: core_v1.Pod | None) -> None:
        """A pod of this node was added, changed or removed at the apiserver."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            # An object that goes before its pod has ended was deleted by force; one that was not is past caring.
            self._remove(old.metadata.uid or "", _FORCED_GRACE_SECONDS)
        if new is not None and not pod_spec.is_mirror(new):
            self.put(new)

    def put(self, pod: core_v1.Pod) -> None:
        """Run this pod, or take note of its change."""
        uid = pod.metadata.uid or ""
        self._pods[uid] = pod
        worker = self.workers.get(uid)
        if worker is not None:
            worker.update(pod)
        elif self._ready.is_set():
            self._start(pod)

    def remove_static(self, uid: str) -> None:
        """The manifest of a static pod is gone."""
        self._remove(uid)

    def _remove(self, uid: str, grace_seconds: int | None = None) -> None:
        self._pods.pop(uid, None)
        worker = self.workers.get(uid)
        if worker is not None:
            worker.removed(grace_seconds)

    def get(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod by its name; the one that is not ending if two share it."""
        found = None
        for worker in self.workers.values():
            meta = worker.pod.metadata
            if meta.namespace == namespace and meta.name == name:
                if worker.state not in ("terminating", "gone"):
                    return worker
                found = worker
        return found

    def active(self) -> list[core_v1.Pod]:
        """The pods that hold resources of this node."""
        return [
            w.pod
            for w in self.workers.values()
            if not pod_spec.finished(w.pod) and w.status.get("phase") not in ("Succeeded", "Failed")
        ]

    # --- life

    async def start(self, existing: dict[str, PodRuntime]) -> None:
        """Begin. `existing` is what the runtime has from before: adopted if it is still wanted, else ended."""
        self._known_at_start = set(existing)
        self._ready.set()
        for pod in list(self._pods.values()):
            self._start(pod)
        self._end_orphans(existing.values())

    def _start(self, pod: core_v1.Pod) -> None:
        uid = pod.metadata.uid or ""
        if uid in self.workers:
            return
        adopted = uid in self._known_at_start
        worker = PodWorker(self._node, pod, adopted=adopted)
        if not adopted and not pod_spec.finished(pod) and pod.metadata.deletionTimestamp is None:
            refusal = self.refusal or admission.refuse(
                pod,
                self.active(),
                self._node.allocatable,
                self._max_pods,
                self._unsafe_sysctls,
                self._node.labels(),
                self.pressures(),
            )
            if refusal is not None:
                self._node.event(pod, "Warning", refusal.reason, refusal.message)
                worker.end(Verdict(refusal.reason, refusal.message))
        self.workers[uid] = worker
        self._node.cgroups.set_qos_shares(self.active())
        self._node.tasks.create_task(self._run(uid, worker), name=f"pod {pod_spec.key(pod)}")

    async def _run(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception as error:
            log.error("pod worker failed", pod=pod_spec.key(worker.pod), exc_info=error)
        finally:
            if self.workers.get(uid) is worker:
                del self.workers[uid]
        # A pod whose worker ended while the object is still wanted (a defect above, an object that could not be
        # deleted) begins again.
        if uid in self._pods and worker.state != "gone":
            self._node.tasks.create_task(self._restart_later(uid), name=f"restart worker {uid}")
        else:
            self._pods.pop(uid, None)

    async def _restart_later(self, uid: str) -> None:
        await asyncio.sleep(5)
        pod = self._pods.get(uid)
        if pod is not None:
            self._start(pod)

    # --- observed state

    def changed(self, uid: str, state: PodRuntime | None) -> None:
        """The runtime has news of a pod."""
        worker = self.workers.get(uid)
        if worker is None:
            return
        if state is None:
            worker.refresh()
        else:
            worker.observe(state)

    def seen(self, pods: dict[str, PodRuntime]) -> None:
        """A full look at the runtime: whatever belongs to no pod that is wanted here has to go."""
        if self._ready.is_set() and (self.informer is None or self.informer.has_synced):
            self._end_orphans(pods.values())

    def _end_orphans(self, found: Iterable[PodRuntime]) -> None:
        for runtime in found:
            if runtime.uid in self._pods or runtime.uid in self.workers:
                continue
            log.info("ending a pod that is not wanted on this node", pod=f"{runtime.namespace}/{runtime.name}")
            worker = PodWorker(self._node, orphan_pod(runtime), adopted=True)
            worker.removed(_FORCED_GRACE_SECONDS)
            self.workers[runtime.uid] = worker
            self._node.tasks.create_task(self._run(runtime.uid, worker), name=f"orphan {runtime.uid}")

    async def clean_leftovers(self) -> None:
        """Directories and cgroups of pods that are neither wanted nor in the runtime."""
        node = self._node
        for uid in node.volumes.known_pods():
            if uid not in self.workers and uid not in self._pods:
                try:
                    node.volumes.tear_down(uid)
                    if node.user_ids is not None:
                        node.user_ids.release(uid)
                except OSError as error:
                    log.warning("left-over volumes can not be removed", uid=uid, error=str(error))
        for uid, path in node.cgroups.known_pods().items():
            if uid not in self.workers and uid not in self._pods:
                node.cgroups.remove_path(path)


def orphan_pod(runtime: PodRuntime) -> core_v1.Pod:
    """As much of a pod as its labels tell: enough to end it."""
    names = dict.fromkeys(c.name for c in runtime.containers)
    return core_v1.Pod(
        apiVersion="v1",
        kind="Pod",
        metadata=meta_v1.ObjectMeta(name=runtime.name, namespace=runtime.namespace, uid=runtime.uid),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name=n) for n in names] or [core_v1.Container(name="none")]),
    )

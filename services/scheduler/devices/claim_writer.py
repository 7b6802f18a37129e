"""Writes decisions about devices into claims: allocation and reservation in one write, and their taking back.

The claim for a pod's extended resources is created here too, and deleted when the pod is not bound after all.

Every write carries the revision that it was decided on. A write whose answer was lost is looked at again before
anything else is done: until the apiserver says what is true, the devices stay promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from machinery.api import kinds, objects
from machinery.api.errors import ApiError, Conflict, NotFound, ServiceUnavailable, Timeout
from machinery.client.requests import PatchType
from machinery.component import logs
from services.scheduler.devices import binding_conditions
from services.scheduler.devices.extended import Use
from services.scheduler.devices.objects import FINALIZER, DeviceResourceClaim
from services.scheduler.devices.store import ClaimMissing, Devices
from services.scheduler.pod_info import PodInfo

ATTEMPTS_MAX = 5
ASK_AGAIN_SECONDS = 1.0

log = logs.get("devices")


class _Refused(Exception):
    """The claim can't be had after all: why."""


class ClaimWriter:
    """`bind` before the pod is bound, then `done`; or `undo`."""

    def __init__(self, handle: Any, timeout_seconds: float) -> None:
        self._handle = handle
        self.timeout_seconds = timeout_seconds
        # Claims that carry the pod's reservation by a write of ours: by the pod's uid, (namespace, name, uid).
        self._written: dict[str, list[tuple[str, str, str]]] = {}
        # By the pod's uid: the claim for its extended resources as it is to be created, and who uses what of it.
        self._extended: dict[str, tuple[dict[str, Any], Sequence[Use]]] = {}
        self._created: dict[str, DeviceResourceClaim] = {}
        # The uids of such claims that are being deleted.
        self._discarded: set[str] = set()

    @staticmethod
    def now() -> datetime:
        """The clock of conditions."""
        return datetime.now(UTC)

    @property
    def _devices(self) -> Devices:
        devices: Devices = self._handle.devices
        return devices

    def extend(self, pod: PodInfo, body: dict[str, Any], uses: Sequence[Use]) -> str:
        """The pod gets this claim for its extended resources; the key for what is promised to it until it is there."""
        self._extended[pod.uid] = (body, uses)
        return f"{pod.uid}/extended"

    def extends(self, pod: PodInfo) -> bool:
        """Whether a claim for the pod's extended resources is to be written."""
        return pod.uid in self._extended

    async def bind(self, pod: PodInfo, node: str) -> str | None:
        """Reserve each claim for the pod, allocated as promised. None, or why the pod can't be bound."""
        try:
            claims = self._devices.claims_of(pod.pod)
            if pod.uid in self._extended:
                claims.append(await self._create(pod))
            bound = [await self._reserve(pod, claim) for claim in claims]
            if pod.uid in self._created:
                await self._tell(pod)
            if all(binding_conditions.ready(claim) for claim in bound):
                return None
            said = f"waiting for binding conditions for device on node {node}"
            self._handle.recorder.record(pod.pod, "Normal", "BindingConditionsPending", said, "Scheduling")
            return await self._wait_ready(pod)
        except (ClaimMissing, _Refused) as err:
            return str(err)
        except ApiError as err:
            return f"claims: {err.message}"

    async def _create(self, pod: PodInfo) -> DeviceResourceClaim:
        # Should the answer be lost, the pod's next attempt finds the claim and has it deleted.
        body, _ = self._extended[pod.uid]
        answer = await self._handle.writer.create(kinds.RESOURCE_CLAIM, body, pod.namespace)
        claim = self._created[pod.uid] = _decoded(answer)
        self._devices.adopt(f"{pod.uid}/extended", claim.metadata.uid)
        return claim

    async def _tell(self, pod: PodInfo) -> None:
        """The kubelet learns from the pod's status which devices are whose."""
        mappings = [use._asdict() for use in self._extended[pod.uid][1]]
        told = {"resourceClaimName": self._created[pod.uid].metadata.name, "requestMappings": mappings}
        patch = {"metadata": {"uid": pod.uid}, "status": {"extendedResourceClaimStatus": told}}
        await self._handle.writer.patch(kinds.POD, pod.name, pod.namespace, patch, subresource="status")

    async def _reserve(self, pod: PodInfo, claim: DeviceResourceClaim) -> DeviceResourceClaim:
        for _ in range(ATTEMPTS_MAX):
            if claim.reserved_for(pod.uid):
                return claim
            if claim.metadata.deletionTimestamp is not None:
                raise _Refused(f"claim {claim.key} got deleted in the meantime")
            try:
                return await self._write(pod, claim)
            except (Conflict, ServiceUnavailable, Timeout):
                claim = await self._read(claim)
        raise _Refused(f"claim {claim.key} changes too often")

    async def _write(self, pod: PodInfo, claim: DeviceResourceClaim) -> DeviceResourceClaim:
        """Finalizer, then allocation and reservation together."""
        client, devices, meta = self._handle.writer, self._devices, claim.metadata
        promised = devices.promised(meta.uid)
        status: dict[str, Any] = {}
        revision = meta.resourceVersion
        if promised is not None:
            if claim.status.allocation is not None:
                raise _Refused(f"claim {claim.key} got allocated elsewhere in the meantime")
            if FINALIZER not in (meta.finalizers or ()):
                patch = {"metadata": {"resourceVersion": revision, "finalizers": [*(meta.finalizers or ()), FINALIZER]}}
                changed = await client.patch(kinds.RESOURCE_CLAIM, meta.name, meta.namespace, patch)
                revision = changed.metadata.resourceVersion
            timestamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            status["allocation"] = {**promised, "allocationTimestamp": timestamp}
        elif claim.status.allocation is None:
            raise _Refused(f"claim {claim.key} got deallocated elsewhere in the meantime")
        consumers = [msgspec.to_builtins(consumer) for consumer in claim.status.reservedFor or ()]
        status["reservedFor"] = [*consumers, {"resource": "pods", "name": pod.name, "uid": pod.uid}]
        # Noted before the answer: should it be lost, `undo` takes back what may have been written.
        self._written.setdefault(pod.uid, []).append((meta.namespace, meta.name, meta.uid))
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": revision}, "status": status}
        answer = await client.patch(kinds.RESOURCE_CLAIM, meta.name, meta.namespace, patch, subresource="status")
        written = _decoded(answer)
        if promised is not None:
            devices.written(meta.uid, int(written.metadata.resourceVersion))
        return written

    async def _read(self, claim: DeviceResourceClaim) -> DeviceResourceClaim:
        """The claim as it is; asked until there is an answer."""
        meta = claim.metadata
        while True:
            try:
                live = _decoded(await self._handle.writer.get(kinds.RESOURCE_CLAIM, meta.name, meta.namespace))
            except NotFound as err:
                raise _Refused(f"claim {claim.key} got deleted in the meantime") from err
            except (ServiceUnavailable, Timeout):
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                continue
            if live.metadata.uid != meta.uid:
                raise _Refused(f"claim {claim.key} got deleted in the meantime")
            return live

    async def _wait_ready(self, pod: PodInfo) -> str | None:
        """Until the drivers of the pod's devices say that all are ready, or that one will never be."""
        created = self._created.get(pod.uid)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while True:
                    changed = self._handle.devices_changed()
                    of_pod = self._devices.extended_claims(pod.uid)
                    seen = [each for each in of_pod if created and each.metadata.uid == created.metadata.uid]
                    claims = [*self._devices.claims_of(pod.pod), *seen]
                    for claim in claims:
                        if why := binding_conditions.failure(claim):
                            return why
                    if (seen or created is None) and all(binding_conditions.ready(claim) for claim in claims):
                        return None
                    await changed.wait()
        except TimeoutError:
            return f"device binding timeout: not ready within {self.timeout_seconds:g} s"

    def done(self, pod: PodInfo) -> None:
        """The pod is bound."""
        for of_pod in (self._written, self._extended, self._created):
            of_pod.pop(pod.uid, None)

    def undo(self, pod: PodInfo) -> None:
        """The pod is not bound: what was promised is free again, what was written is taken back."""
        written, created = self._written.pop(pod.uid, []), self._created.pop(pod.uid, None)
        self._extended.pop(pod.uid, None)
        kept = {uid for _, _, uid in written}
        if created is not None:
            kept.add(created.metadata.uid)
            self.discard(created)
        self._devices.release_of(pod.uid, kept)
        for namespace, name, uid in written:
            if created is not None and uid == created.metadata.uid:
                continue
            self._handle.spawn(self._take_back(pod, namespace, name, uid), f"unreserve claim {namespace}/{name}")

    async def _take_back(self, pod: PodInfo, namespace: str, name: str, uid: str) -> None:
        patch = {"metadata": {"uid": uid}, "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid}]}}
        try:
            answer = await self._handle.writer.patch(
                kinds.RESOURCE_CLAIM, name, namespace, patch, type=PatchType.STRATEGIC, subresource="status"
            )
        except NotFound:
            self._devices.release(uid)
        except ApiError as err:
            # The claim controller or the next attempt of the pod comes back to it.
            log.info("reservation not taken back", claim=f"{namespace}/{name}", error=err.message)
        else:
            # From this revision on the claim says itself what it holds.
            self._devices.written(uid, int(_decoded(answer).metadata.resourceVersion) - 1)

    def discard(self, claim: DeviceResourceClaim) -> None:
        """Delete the claim that was written for extended resources of a pod that is not bound."""
        uid = claim.metadata.uid
        if uid not in self._discarded:
            self._discarded.add(uid)
            self._handle.spawn(self._discard(claim), f"delete claim {claim.key}")

    async def _discard(self, claim: DeviceResourceClaim) -> None:
        meta, client = claim.metadata, self._handle.writer
        try:
            while True:
                try:
                    unprotected = {"metadata": {"uid": meta.uid, "finalizers": None}}
                    await client.patch(kinds.RESOURCE_CLAIM, meta.name, meta.namespace, unprotected)
                    await client.delete(kinds.RESOURCE_CLAIM, meta.name, meta.namespace, uid=meta.uid)
                    return
                except (ServiceUnavailable, Timeout):
                    await asyncio.sleep(ASK_AGAIN_SECONDS)
        except (NotFound, Conflict):  # Gone, or one of the same name stands in its place.
            self._devices.release(meta.uid)
        except ApiError as err:
            log.info("claim for extended resources not deleted", claim=claim.key, error=err.message)
        finally:
            self._discarded.discard(meta.uid)

    def deallocate(self, pod: PodInfo, claim: DeviceResourceClaim) -> None:
        """Give up an allocation that serves nobody."""
        self._handle.spawn(self._deallocate(claim), f"deallocate claim {claim.key}")

    async def _deallocate(self, claim: DeviceResourceClaim) -> None:
        meta = claim.metadata
        patch = {
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resourceVersion},
            "status": {"allocation": None, "reservedFor": None, "devices": None},
        }
        try:
            await self._handle.writer.patch(
                kinds.RESOURCE_CLAIM, meta.name, meta.namespace, patch, subresource="status"
            )
        except ApiError as err:
            log.info("claim not deallocated", claim=claim.key, error=err.message)


def _decoded(answer: Any) -> DeviceResourceClaim:
    return msgspec.json.decode(objects.encode(answer), type=DeviceResourceClaim)

"""The claims of this node's pods: prepared before a pod's sandbox is made, taken back when its containers have ended.

A claim that several pods share is prepared once and taken back with the last of them. Both are asked again until they
work, over restarts of the kubelet too; a driver must take that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightkube.models import core_v1, resource_v1

from machinery.api import kinds
from machinery.api.errors import ApiError
from machinery.client.api_client import ApiClient
from machinery.component import logs
from protos.kubelet import dra_pb2
from services.kubelet.devices import checkpoint
from services.kubelet.devices.checkpoint import PreparedClaim, PreparedDevice
from services.kubelet.devices.drivers import DeviceError, Drivers

RECONCILE_SECONDS = 60.0

log = logs.get("device_claims")


class DeviceClaims:
    """See the module's docstring."""

    def __init__(self, root: Path, node: str, client: ApiClient) -> None:
        self._root = root
        self._client = client
        self.drivers = Drivers(root, node, client)
        self._claims: dict[str, PreparedClaim] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def load(self) -> None:
        """What an earlier kubelet had prepared. Raises checkpoint.BadCheckpoint."""
        self._claims = checkpoint.read(self._root)

    async def run(self, active: Callable[[], Iterable[str]]) -> None:
        """Follow drivers, and take back what pods held that are gone. `active`: the uids of the others."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.drivers.run(), name="device drivers")
            while True:
                await self._take_back_lost(set(active()))
                await asyncio.sleep(RECONCILE_SECONDS)

    async def _take_back_lost(self, active: set[str]) -> None:
        lost = {pod for claim in self._claims.values() for pod in claim.pods if pod not in active}
        for pod in lost:
            try:
                await self.unprepare(pod)
            except OSError as err:
                log.info("devices of a lost pod not taken back, trying again", pod=pod, error=str(err))

    # --- preparing ----------------------------------------------------------------------------------------------------

    async def prepare(self, pod: core_v1.Pod) -> None:
        """Have the pod's devices ready. Raises DeviceError."""
        for reference in pod.spec.resourceClaims or ():
            name, generated = claim_name(pod, reference)
            if name:
                await self._prepare(pod, await self._read(pod, name, generated=generated))
        extended = extended_claim(pod)
        if extended is not None:
            await self._prepare(pod, await self._read(pod, extended.resourceClaimName, generated=True))

    async def _read(self, pod: core_v1.Pod, name: str, *, generated: bool) -> resource_v1.ResourceClaim:
        try:
            claim: resource_v1.ResourceClaim = await self._client.get(
                kinds.RESOURCE_CLAIM, name, pod.metadata.namespace or ""
            )
        except ApiError as err:
            raise DeviceError(f"fetch ResourceClaim {name}: {err.message}") from err
        owners = claim.metadata.ownerReferences or ()
        if generated and not any(owner.controller and owner.uid == pod.metadata.uid for owner in owners):
            raise DeviceError(f"ResourceClaim {name} was not created for pod {pod.metadata.name}")
        consumers = (claim.status.reservedFor if claim.status else None) or ()
        if not any(consumer.uid == pod.metadata.uid for consumer in consumers):
            raise DeviceError(f"ResourceClaim {name} is not reserved for pod {pod.metadata.name}")
        if claim.status is None or claim.status.allocation is None:
            raise DeviceError(f"ResourceClaim {name} is not allocated")
        return claim

    async def _prepare(self, pod: core_v1.Pod, claim: resource_v1.ResourceClaim) -> None:
        uid = claim.metadata.uid or ""
        namespace, name = claim.metadata.namespace or "", claim.metadata.name or ""
        async with self._lock(uid):
            known = self._claims.get(uid)
            if known is None:
                namesake = next((c for c in self._claims.values() if (c.namespace, c.name) == (namespace, name)), None)
                if namesake is not None:
                    raise DeviceError(f"an earlier ResourceClaim {name} ({namesake.uid}) is still prepared here")
                known = self._claims[uid] = PreparedClaim(namespace, name, uid)
            pod_uid = pod.metadata.uid or ""
            if known.prepared and pod_uid in known.pods:
                return
            known.pods = known.pods | {pod_uid}
            results = (claim.status.allocation.devices.results if claim.status else None) or ()  # type: ignore[union-attr]
            known.drivers = {result.driver: known.drivers.get(result.driver, []) for result in results}
            self._save()
            if known.prepared:
                return
            for driver in known.drivers:
                known.drivers[driver] = await self._ask(driver, known)
            known.prepared = True
            self._save()

    async def _ask(self, driver: str, claim: PreparedClaim) -> list[PreparedDevice]:
        answer = await self.drivers.get(driver).prepare([_message(claim)])
        if claim.uid not in answer.claims:
            raise DeviceError(f"driver {driver} skipped ResourceClaim {claim.name}")
        result = answer.claims[claim.uid]
        if result.error:
            raise DeviceError(f"NodePrepareResources failed for ResourceClaim {claim.name}: {result.error}")
        return [
            PreparedDevice(
                device.pool_name,
                device.device_name,
                tuple(device.cdi_device_ids),
                tuple(device.request_names),
                device.share_id,
            )
            for device in result.devices
        ]

    def cdi_devices(self, pod: core_v1.Pod, container: Any) -> list[str]:
        """The CDI names of the devices that a container of the pod uses, each once. Raises DeviceError."""
        out: dict[str, None] = {}
        used = (container.resources.claims if container.resources else None) or ()
        references = {reference.name: reference for reference in pod.spec.resourceClaims or ()}
        for use in used:
            name, _ = claim_name(pod, references[use.name]) if use.name in references else ("", False)
            if not name:
                continue
            claim = self._of(pod, name)
            for devices in claim.drivers.values():
                for device in devices:
                    if serves(device, use.request or ""):
                        out |= dict.fromkeys(device.cdi_ids)
        extended = extended_claim(pod)
        if extended is not None:
            mine = {use.requestName for use in extended.requestMappings if use.containerName == container.name}
            for devices in self._of(pod, extended.resourceClaimName).drivers.values() if mine else ():
                for device in devices:
                    if any(serves(device, request) for request in mine):
                        out |= dict.fromkeys(device.cdi_ids)
        return list(out)

    def _of(self, pod: core_v1.Pod, name: str) -> PreparedClaim:
        for claim in self._claims.values():
            if (claim.namespace, claim.name) == (pod.metadata.namespace, name) and claim.prepared:
                return claim
        raise DeviceError(f"ResourceClaim {name} is not prepared")

    # --- taking back --------------------------------------------------------------------------------------------------

    async def unprepare(self, pod_uid: str) -> None:
        """The pod needs its devices no more. Raises DeviceError while a driver does not take them back."""
        for uid in [uid for uid, claim in self._claims.items() if pod_uid in claim.pods]:
            async with self._lock(uid):
                claim = self._claims.get(uid)
                if claim is None or pod_uid not in claim.pods:
                    continue
                if claim.pods == {pod_uid}:
                    for driver in claim.drivers:
                        await self._take_back(driver, claim)
                    del self._claims[uid]
                    self._locks.pop(uid, None)
                else:
                    claim.pods = claim.pods - {pod_uid}
                self._save()

    async def _take_back(self, driver: str, claim: PreparedClaim) -> None:
        answer = await self.drivers.get(driver).unprepare([_message(claim)])
        if claim.uid not in answer.claims:
            raise DeviceError(f"driver {driver} skipped ResourceClaim {claim.name}")
        if answer.claims[claim.uid].error:
            error = answer.claims[claim.uid].error
            raise DeviceError(f"NodeUnprepareResources failed for ResourceClaim {claim.name}: {error}")

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _save(self) -> None:
        checkpoint.write(self._root, self._claims)


def claim_name(pod: core_v1.Pod, reference: core_v1.PodResourceClaim) -> tuple[str, bool]:
    """(the claim's name, whether it was made for this pod). An empty name: none is needed. Raises DeviceError."""
    if reference.resourceClaimName:
        return reference.resourceClaimName, False
    statuses = (pod.status.resourceClaimStatuses if pod.status else None) or ()
    for status in statuses:
        if status.name == reference.name:
            return status.resourceClaimName or "", True
    raise DeviceError(f"the ResourceClaim for {reference.name} has not been created yet")


def extended_claim(pod: core_v1.Pod) -> core_v1.PodExtendedResourceClaimStatus | None:
    """The claim that the scheduler wrote for the pod's extended resources, and which container uses what of it."""
    return pod.status.extendedResourceClaimStatus if pod.status else None


def serves(device: PreparedDevice, request: str) -> bool:
    """Whether the device is one for a request, which may be named without the alternative that was taken."""
    if not request or not device.requests:
        return True
    return any(name == request or name.partition("/")[0] == request for name in device.requests)


def _message(claim: PreparedClaim) -> dra_pb2.Claim:
    return dra_pb2.Claim(namespace=claim.namespace, uid=claim.uid, name=claim.name)

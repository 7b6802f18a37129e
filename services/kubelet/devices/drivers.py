"""Drivers of devices: found by their sockets in `plugins_registry`, called by gRPC over a socket of their own.

A driver that goes leaves ResourceSlices behind, for devices that nobody can prepare any more; some time later they
are deleted. So are all of this node's when the kubelet starts, since no driver has come back yet, as upstream has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from machinery.api import kinds
from machinery.api.errors import ApiError
from machinery.client.api_client import ApiClient
from machinery.component import logs
from protos.kubelet import dra_pb2, plugin_registration_pb2, plugin_registration_pb2_grpc
from services.kubelet.inotify import DirectoryWatch

DRA_PLUGIN = "DRAPlugin"
SERVICES = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
"""What is understood, best first. The messages are the same."""

RESCAN_SECONDS = 10.0
RETRY_SECONDS_MIN = 0.05
"""How soon a socket that does not answer is asked again, doubling up to RESCAN_SECONDS: it is seen when it is bound,
a moment before its driver listens."""
REGISTER_SECONDS_MAX = 10.0
PREPARE_SECONDS_MAX = 45.0
"""How long a driver may take for a call: upstream's default."""
WIPE_SECONDS = 30.0
"""How long after a driver left its slices stay: enough for it to be restarted or replaced."""

log = logs.get("devices")


class DeviceError(OSError):
    """Devices can't be prepared or given back; to be tried again."""


class Driver:
    """One registered driver."""

    def __init__(self, name: str, endpoint: str, service: str) -> None:
        self.name = name
        self.endpoint = endpoint
        self._path = f"/k8s.io.kubelet.pkg.apis.dra.{service.replace('.DRAPlugin', '')}.DRAPlugin"
        self._channel = grpc.aio.insecure_channel(f"unix://{endpoint}")

    async def prepare(self, claims: Iterable[dra_pb2.Claim]) -> dra_pb2.NodePrepareResourcesResponse:
        """Make the claims' devices ready; once more for claims that are ready is no harm. Raises DeviceError."""
        request = dra_pb2.NodePrepareResourcesRequest(claims=claims)
        answer: dra_pb2.NodePrepareResourcesResponse = await self._call(
            "NodePrepareResources", request, dra_pb2.NodePrepareResourcesResponse
        )
        return answer

    async def unprepare(self, claims: Iterable[dra_pb2.Claim]) -> dra_pb2.NodeUnprepareResourcesResponse:
        """Take them back; what was never prepared is taken back already. Raises DeviceError."""
        request = dra_pb2.NodeUnprepareResourcesRequest(claims=claims)
        answer: dra_pb2.NodeUnprepareResourcesResponse = await self._call(
            "NodeUnprepareResources", request, dra_pb2.NodeUnprepareResourcesResponse
        )
        return answer

    async def _call(self, method: str, request: Any, response: type[Any]) -> Any:
        call = self._channel.unary_unary(
            f"{self._path}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            return await call(request, timeout=PREPARE_SECONDS_MAX)
        except grpc.aio.AioRpcError as err:
            raise DeviceError(f"{method} of driver {self.name}: {err.code().name}: {err.details()}") from err

    async def close(self) -> None:
        await self._channel.close()


class Drivers:
    """The drivers of this node. `run` follows who comes and goes."""

    def __init__(self, root: Path, node: str, client: ApiClient) -> None:
        self.directory = root / "plugins_registry"
        self._node = node
        self._client = client
        # By the registration socket; of several for one driver the latest counts.
        self._registered: dict[str, Driver] = {}
        self._identity: dict[str, tuple[int, int, int]] = {}
        self.changed: Callable[[], None] = lambda: None
        self._tasks: asyncio.TaskGroup | None = None

    def get(self, name: str) -> Driver:
        """A driver by its name. Raises DeviceError."""
        for driver in reversed(self._registered.values()):
            if driver.name == name:
                return driver
        raise DeviceError(f"DRA driver {name} is not registered")

    async def run(self) -> None:
        """Follow the directory for ever."""
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._wipe("", 0.0), name="slices of earlier drivers")
            retry = RETRY_SECONDS_MIN
            with DirectoryWatch(str(self.directory)) as watch:
                while True:
                    answered = await self._scan()
                    retry = RETRY_SECONDS_MIN if answered else min(2 * retry, RESCAN_SECONDS)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RESCAN_SECONDS if answered else retry):
                            await watch.wait()

    async def _scan(self) -> bool:
        """Take note of who came and went. False: a socket does not answer (yet)."""
        found = {str(path): identity for path in sorted(self._sockets()) if (identity := _socket(path)) is not None}
        for path in [path for path, identity in self._identity.items() if found.get(path) != identity]:
            await self._forget(path)
        for path, identity in found.items():
            if path not in self._identity and await self._register(path):
                self._identity[path] = identity
        return found.keys() <= self._identity.keys()

    def _sockets(self) -> Iterable[Path]:
        yield from self.directory.glob("*")
        yield from self.directory.glob("*/*")

    async def _forget(self, path: str) -> None:
        self._identity.pop(path)
        driver = self._registered.pop(path, None)
        if driver is None:
            return
        log.info("device driver left", driver=driver.name)
        await driver.close()
        assert self._tasks is not None
        self._tasks.create_task(self._wipe(driver.name, WIPE_SECONDS), name=f"slices of {driver.name}")

    async def _register(self, path: str) -> bool:
        """Ask who it is, and tell it what came of that. False: it does not answer (yet)."""
        async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
            stub: Any = plugin_registration_pb2_grpc.RegistrationStub(channel)  # type: ignore[no-untyped-call]
            try:
                info = await stub.GetInfo(plugin_registration_pb2.InfoRequest(), timeout=REGISTER_SECONDS_MAX)
                problem = unusable(info)
                if not problem:
                    service = next(name for name in SERVICES if name in info.supported_versions)
                    self._registered.pop(path, None)
                    self._registered[path] = Driver(info.name, info.endpoint, service)
                status = plugin_registration_pb2.RegistrationStatus(plugin_registered=not problem, error=problem)
                await stub.NotifyRegistrationStatus(status, timeout=REGISTER_SECONDS_MAX)
            except grpc.aio.AioRpcError as err:
                self._registered.pop(path, None)
                log.info("registration socket does not answer", socket=path, error=err.details())
                return False
        if problem:
            log.warning("plugin refused", socket=path, name=info.name, error=problem)
        else:
            log.info("device driver registered", driver=info.name, endpoint=info.endpoint)
            self.changed()
        return True

    async def _wipe(self, driver: str, seconds: float) -> None:
        """Delete slices of a driver (of all that are not here, if it has no name) on this node."""
        await asyncio.sleep(seconds)
        pause = 1.0
        while True:
            here = {each.name for each in self._registered.values()}
            if driver and driver in here:
                return
            selector = f"spec.nodeName={self._node}" + (f",spec.driver={driver}" if driver else "")
            try:
                await self._client.delete_collection(kinds.RESOURCE_SLICE, field_selector=selector)
            except ApiError as err:
                log.info("slices not deleted, trying again", driver=driver, error=err.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 60.0)
                continue
            return


def unusable(info: plugin_registration_pb2.PluginInfo) -> str:
    """Why a plugin is not taken; empty: it is."""
    if info.type != DRA_PLUGIN:
        return f"type {info.type!r}: this kubelet uses plugins of type {DRA_PLUGIN} only"
    if not info.name:
        return "name: a driver needs one"
    if not info.endpoint.startswith("/"):
        return f"endpoint {info.endpoint!r}: must be the absolute path of a socket"
    if not set(SERVICES) & set(info.supported_versions):
        offered = ", ".join(info.supported_versions) or "none"
        return f"supported versions {offered}: this kubelet speaks {', '.join(SERVICES)}"
    return ""


def _socket(path: Path) -> tuple[int, int, int] | None:
    """What tells one socket from another at the same path; None: no socket."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_dev, info.st_ino, info.st_ctime_ns) if stat.S_ISSOCK(info.st_mode) else None

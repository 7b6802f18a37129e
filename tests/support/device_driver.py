"""A driver of devices as third parties write them: registers with the kubelet, prepares claims, writes CDI files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import grpc

from protos.kubelet import dra_pb2, dra_pb2_grpc, plugin_registration_pb2, plugin_registration_pb2_grpc

KIND = "example.com/gpu"


class DeviceDriver(dra_pb2_grpc.DRAPluginServicer, plugin_registration_pb2_grpc.RegistrationServicer):
    """`async with DeviceDriver(kubelet_root, cdi_directory, name)`.

    Each claim gets a CDI device of its own, with a variable that names the claim. `calls` are what it was asked;
    `broken` makes it refuse.
    """

    def __init__(
        self, kubelet_root: Path, cdi_directory: Path, name: str = "gpu.example.com", pool: str = "n1",
        versions: tuple[str, ...] = ("v1.DRAPlugin",), type: str = "DRAPlugin",
    ) -> None:  # fmt: skip
        self.name, self.pool, self.versions, self.type = name, pool, versions, type
        self._cdi = cdi_directory
        self._registration = kubelet_root / "plugins_registry" / f"{name}-reg.sock"
        self._endpoint = kubelet_root / "plugins" / name / "dra.sock"
        self._server: Any = None
        self.calls: list[tuple[str, str]] = []
        self.broken = ""
        # The request of the claim that the device is for, as its allocation says.
        self.request = "r"
        self.registered: Any = None
        self._told = asyncio.Event()

    async def __aenter__(self) -> Self:
        for path in (self._registration, self._endpoint):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        self._cdi.mkdir(parents=True, exist_ok=True)
        self._server = grpc.aio.server()
        dra_pb2_grpc.add_DRAPluginServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        plugin_registration_pb2_grpc.add_RegistrationServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        for path in (self._endpoint, self._registration):
            self._server.add_insecure_port(f"unix://{path}")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)
        for path in (self._registration, self._endpoint):
            path.unlink(missing_ok=True)

    async def wait_registered(self, seconds: float = 20.0) -> None:
        """Until the kubelet has said what came of the registration. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._told.wait()

    async def GetInfo(self, request: Any, context: Any) -> Any:
        return plugin_registration_pb2.PluginInfo(
            type=self.type, name=self.name, endpoint=str(self._endpoint), supported_versions=self.versions
        )

    async def NotifyRegistrationStatus(self, request: Any, context: Any) -> Any:
        self.registered = request
        self._told.set()
        return plugin_registration_pb2.RegistrationStatusResponse()

    async def NodePrepareResources(self, request: Any, context: Any) -> Any:
        out = dra_pb2.NodePrepareResourcesResponse()
        for claim in request.claims:
            self.calls.append(("prepare", claim.name))
            if self.broken:
                out.claims[claim.uid].error = self.broken
                continue
            edits = {
                "env": [f"DEVICE_OF={claim.name}"],
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}],
            }
            spec = {"cdiVersion": "0.6.0", "kind": KIND, "devices": [{"name": claim.uid, "containerEdits": edits}]}
            (self._cdi / f"{claim.uid}.json").write_text(json.dumps(spec))
            ids = [f"{KIND}={claim.uid}"]
            device = dra_pb2.Device(
                request_names=[self.request], pool_name=self.pool, device_name="d0", cdi_device_ids=ids
            )
            out.claims[claim.uid].devices.append(device)
        return out

    async def NodeUnprepareResources(self, request: Any, context: Any) -> Any:
        out = dra_pb2.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            self.calls.append(("unprepare", claim.name))
            if self.broken:
                out.claims[claim.uid].error = self.broken
                continue
            (self._cdi / f"{claim.uid}.json").unlink(missing_ok=True)
            out.claims[claim.uid].SetInParent()
        return out

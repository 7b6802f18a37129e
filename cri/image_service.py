"""runtime.v1.ImageService."""

import asyncio

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from cri import containerd_api as api
from cri.errors import CriError, InvalidArgument, from_grpc
from cri.images import reference
from cri.images.pull import Puller
from cri.runtime import Runtime
from cri.state import now

# containerd.services.snapshots.v1.Kind
_COMMITTED = 3


class ImageService(api_pb2_grpc.ImageServiceServicer):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._committed: dict[str, tuple[int, int]] = {}
        self._puller = Puller(runtime.containerd, runtime.config)

    async def ListImages(self, request: cri.ListImagesRequest, context: object) -> cri.ListImagesResponse:
        images = self._runtime.images
        wanted = request.filter.image.image
        if wanted:
            entry = await images.find(wanted)
            return cri.ListImagesResponse(images=[images.to_cri(entry)] if entry else [])
        entries = await images.entries()
        return cri.ListImagesResponse(images=[images.to_cri(entry) for entry in entries.values()])

    async def ImageStatus(self, request: cri.ImageStatusRequest, context: object) -> cri.ImageStatusResponse:
        images = self._runtime.images
        entry = await images.find(request.image.image)
        if entry is None:
            return cri.ImageStatusResponse()
        response = cri.ImageStatusResponse(image=images.to_cri(entry))
        if request.verbose:
            import msgspec

            info = {"chainID": entry.resolved.chain_id, "imageSpec": {"config": entry.resolved.config}}
            response.info["info"] = msgspec.json.encode(info).decode()
        return response

    async def PullImage(self, request: cri.PullImageRequest, context: object) -> cri.PullImageResponse:
        if not request.image.image:
            raise InvalidArgument("image: an empty reference")
        if reference.is_digest(request.image.image):
            raise InvalidArgument(f"image {request.image.image!r}: an id names no registry to pull from")
        auth = request.auth if request.HasField("auth") else None
        return cri.PullImageResponse(image_ref=await self._puller.pull(request.image.image, auth))

    async def RemoveImage(self, request: cri.RemoveImageRequest, context: object) -> cri.RemoveImageResponse:
        await self._runtime.images.remove(request.image.image)
        return cri.RemoveImageResponse()

    async def ImageFsInfo(self, request: cri.ImageFsInfoRequest, context: object) -> cri.ImageFsInfoResponse:
        """What the snapshots of images and containers take, and where: the kubelet looks up the file system itself."""
        used, inodes = await self._snapshot_usage()
        file_system = cri.FilesystemUsage(
            timestamp=now(), fs_id=cri.FilesystemIdentifier(mountpoint=await self._runtime.images.snapshot_directory())
        )
        file_system.used_bytes.value = used
        file_system.inodes_used.value = inodes
        return cri.ImageFsInfoResponse(image_filesystems=[file_system], container_filesystems=[file_system])

    async def _snapshot_usage(self) -> tuple[int, int]:
        """(bytes, inodes) of all snapshots. What is committed never changes, and is asked for once."""
        ctd, snapshotter = self._runtime.containerd, self._runtime.config.snapshotter
        committed: dict[str, tuple[int, int]] = {}
        wanted: list[tuple[str, bool]] = []
        try:
            request = api.snapshots.ListSnapshotsRequest(snapshotter=snapshotter)
            async for answer in ctd.snapshots.stream("List", request):
                for info in answer.info:
                    if info.name in self._committed:
                        committed[info.name] = self._committed[info.name]
                    else:
                        wanted.append((info.name, info.kind == _COMMITTED))
        except grpc.aio.AioRpcError as error:
            raise from_grpc(error, "containerd snapshots.List") from error
        usages = await asyncio.gather(*(self._usage_of(name) for name, _ in wanted))
        committed |= {name: usage for (name, fixed), usage in zip(wanted, usages, strict=True) if fixed and usage[1]}
        self._committed = committed
        changing = [usage for (_, fixed), usage in zip(wanted, usages, strict=True) if not fixed]
        everything = [*committed.values(), *changing]
        return sum(usage[0] for usage in everything), sum(usage[1] for usage in everything)

    async def _usage_of(self, name: str) -> tuple[int, int]:
        request = api.snapshots.UsageRequest(snapshotter=self._runtime.config.snapshotter, key=name)
        try:
            usage = await self._runtime.containerd.snapshots.Usage(request)
        except CriError:  # removed meanwhile
            return 0, 0
        return usage.size, usage.inodes

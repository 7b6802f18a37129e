"""runtime.v1.ImageService."""

import asyncio

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from cri import containerd_api as api
from cri.errors import InvalidArgument, from_grpc
from cri.images import reference
from cri.images.pull import Puller
from cri.runtime import Runtime
from cri.state import now


class ImageService(api_pb2_grpc.ImageServiceServicer):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
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
        ctd, snapshotter = self._runtime.containerd, self._runtime.config.snapshotter
        used = inodes = 0
        names: list[str] = []
        try:
            async for answer in ctd.snapshots.stream(
                "List", api.snapshots.ListSnapshotsRequest(snapshotter=snapshotter)
            ):
                names += [info.name for info in answer.info]
        except grpc.aio.AioRpcError as error:
            raise from_grpc(error, "containerd snapshots.List") from error
        usages = await asyncio.gather(
            *(ctd.snapshots.Usage(api.snapshots.UsageRequest(snapshotter=snapshotter, key=name)) for name in names),
            return_exceptions=True,
        )
        for usage in usages:
            if not isinstance(usage, BaseException):
                used, inodes = used + usage.size, inodes + usage.inodes
        file_system = cri.FilesystemUsage(
            timestamp=now(), fs_id=cri.FilesystemIdentifier(mountpoint=await self._runtime.images.snapshot_directory())
        )
        file_system.used_bytes.value = used
        file_system.inodes_used.value = inodes
        return cri.ImageFsInfoResponse(image_filesystems=[file_system], container_filesystems=[file_system])

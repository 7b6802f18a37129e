"""Reading and writing blobs of containerd's content store.

containerd computes the digest of what is written and refuses a commit whose digest is not the expected one, so a
blob in the store is what its name says. Everything that is written belongs to a lease until something refers to it.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import msgspec

from cri import containerd_api as api
from cri.containerd_client import Containerd
from cri.errors import AlreadyExists, CriError, InvalidArgument, NotFound, from_grpc

# Manifests and configs are kilobytes; more is an attempt to fill our memory.
DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
# Hours that a killed pull's content stays before containerd's collector may take it.
_LEASE_EXPIRES = "containerd.io/gc.expire"

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)


@contextlib.asynccontextmanager
async def lease(ctd: Containerd) -> AsyncIterator[str]:
    """A lease for one piece of work: it holds what is written until the end, then references must."""
    import datetime

    expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = f"cri-{secrets.token_hex(8)}"
    await ctd.leases.Create(api.leases.CreateRequest(id=name, labels={_LEASE_EXPIRES: expires}))
    try:
        yield name
    finally:
        with contextlib.suppress(CriError):
            await ctd.leases.Delete(api.leases.DeleteRequest(id=name))


async def exists(ctd: Containerd, digest: str, lease_name: str = "") -> bool:
    """Whether the blob is there; if it is, the lease holds it from now on.

    The lease comes first: the collector may run between two calls, and what it takes must then be seen as absent.
    """
    if lease_name:
        resource = api.leases.Resource(id=digest, type="content")
        await ctd.leases.AddResource(api.leases.AddResourceRequest(id=lease_name, resource=resource))
    try:
        await ctd.content.Info(api.content.InfoRequest(digest=digest))
    except NotFound:
        return False
    return True


async def read(ctd: Containerd, digest: str, limit_bytes: int = DOCUMENT_BYTES_MAX) -> bytes:
    """A small blob whole; raises NotFound, or InvalidArgument for one above the limit."""
    parts: list[bytes] = []
    size = 0
    try:
        async for answer in ctd.content.stream("Read", api.content.ReadContentRequest(digest=digest)):
            size += len(answer.data)
            if size > limit_bytes:
                raise InvalidArgument(f"blob {digest} is larger than {limit_bytes} bytes")
            parts.append(answer.data)
    except grpc.aio.AioRpcError as error:
        raise from_grpc(error, f"read {digest}") from error
    return b"".join(parts)


def parse_json(data: bytes, what: str) -> Any:
    """A document from outside; raises InvalidArgument for what is no JSON, or nested without end."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from error


async def read_json(ctd: Containerd, digest: str) -> Any:
    return parse_json(await read(ctd, digest), f"blob {digest}")


async def write(
    ctd: Containerd,
    digest: str,
    size: int,
    chunks: AsyncIterator[bytes],
    *,
    lease_name: str,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Stores a blob from its chunks; raises InvalidArgument when they are not what digest and size say.

    `size` 0 means unknown. Memory: one chunk.
    """
    ref = f"cri-{secrets.token_hex(8)}-{digest}"
    source = _Source(chunks, ref, digest, size, dict(labels or {}))
    call = ctd.content.stream("Write", source.requests(), lease=lease_name)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        translated = from_grpc(error, f"store {digest}")
        if isinstance(translated, AlreadyExists):
            await exists(ctd, digest, lease_name)
            return
        await _abort(ctd, ref)
        raise translated from error
    except BaseException:
        call.cancel()
        await _abort(ctd, ref)
        # A source that fails cancels the call; the source's own error is the one to tell.
        if source.failure is not None:
            raise source.failure from None
        raise
    if source.failure is not None:
        await _abort(ctd, ref)
        raise source.failure


class _Source:
    """A blob's chunks as write requests; keeps the error of a source that fails, which gRPC would swallow."""

    def __init__(self, chunks: AsyncIterator[bytes], ref: str, digest: str, size: int, labels: dict[str, str]) -> None:
        self._chunks = chunks
        self._common = {"ref": ref, "expected": digest}
        self._size = size
        self._labels = labels
        self.failure: Exception | None = None

    async def requests(self) -> AsyncIterator[Any]:
        request, offset = api.content.WriteContentRequest, 0
        try:
            async for chunk in self._chunks:
                for start in range(0, len(chunk), _CHUNK_BYTES):
                    data = chunk[start : start + _CHUNK_BYTES]
                    yield request(action=1, total=self._size, offset=offset, data=data, **self._common)
                    offset += len(data)
                    if self._size and offset > self._size:
                        raise InvalidArgument(f"blob is longer than the {self._size} bytes announced")
        except Exception as error:  # told by `write`
            self.failure = error
            return
        yield request(action=2, total=self._size or offset, offset=offset, labels=self._labels, **self._common)


async def _abort(ctd: Containerd, ref: str) -> None:
    with contextlib.suppress(CriError):
        await ctd.content.Abort(api.content.AbortRequest(ref=ref))


async def write_bytes(
    ctd: Containerd, digest: str, data: bytes, *, lease_name: str, labels: Mapping[str, str] | None = None
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    if not await exists(ctd, digest, lease_name):
        await write(ctd, digest, len(data), chunks(), lease_name=lease_name, labels=labels)
    elif labels:
        await label(ctd, digest, labels)


async def label(ctd: Containerd, digest: str, labels: Mapping[str, str]) -> None:
    """Adds labels to a blob; with `containerd.io/gc.ref.…` they are what keeps others from being collected."""
    info = api.content.Info(digest=digest, labels=dict(labels))
    mask = api.well_known.FieldMask(paths=[f"labels.{key}" for key in labels])
    await ctd.content.Update(api.content.UpdateRequest(info=info, update_mask=mask))


def references(document: Mapping[str, Any]) -> dict[str, str]:
    """The collector's labels of an index or a manifest: what it refers to."""
    result: dict[str, str] = {}
    if "config" in document:
        result["containerd.io/gc.ref.content.config"] = document["config"]["digest"]
    for number, layer in enumerate(document.get("layers") or []):
        result[f"containerd.io/gc.ref.content.l.{number}"] = layer["digest"]
    for number, manifest in enumerate(document.get("manifests") or []):
        result[f"containerd.io/gc.ref.content.m.{number}"] = manifest["digest"]
    return result

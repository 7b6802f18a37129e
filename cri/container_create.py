"""CreateContainer: the image's snapshot, the OCI spec, containerd's container object. No process yet."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import accounts, cdi, id_maps, node_facts, oci_parts, oci_security, records, status
from cri import containerd_api as api
from cri.container_io import log_path
from cri.container_remove import remove_snapshot
from cri.containerd_client import SPEC_TYPE
from cri.errors import CriError, FailedPrecondition, Internal, InvalidArgument, NotFound
from cri.idmapped import Stage
from cri.images import volumes
from cri.images.store import ImageInfo
from cri.oci_spec import Device, SpecInput, User, container_spec
from cri.pause import runc_options
from cri.records import ContainerRecord, StatusRecord
from cri.runtime import Runtime
from cri.state import Container, Sandbox, container_name, new_id, now

CONTAINER_LABEL = "cutaway.dev/container"


async def create_container(runtime: Runtime, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
    sandbox = runtime.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise FailedPrecondition(f"sandbox {sandbox.id} is not ready: no container can be created in it")
    config = request.config
    if not config.metadata.name:
        raise InvalidArgument("config.metadata.name is required")
    container_id = new_id()
    runtime.store.containers.reserve(container_name(config.metadata, sandbox.config.metadata), container_id)
    async with _undone_on_failure(runtime, container_id, config):
        image = await runtime.images.info(config.image.image)
        container = await _create(runtime, sandbox, container_id, config, image)
        runtime.store.containers.add(container)
    status.publish(runtime, cri.CONTAINER_CREATED_EVENT, sandbox, container)
    return cri.CreateContainerResponse(container_id=container_id)


async def _create(
    runtime: Runtime, sandbox: Sandbox, container_id: str, config: cri.ContainerConfig, image: ImageInfo
) -> Container:
    context = config.linux.security_context
    user = accounts.resolve(context, image.user, await runtime.images.accounts(image))
    # Image volumes are mounted first: they are sources of the container's mounts.
    image_roots = await volumes.mount_all(runtime, container_id, config.mounts, sandbox)
    record = ContainerRecord(
        sandbox_id=sandbox.id,
        config=config.SerializeToString(),
        image_ref=image.reference,
        image_id=image.id,
        created_at=now(),
        log_path=log_path(sandbox.config.log_directory, config.log_path),
        stop_signal=_stop_signal(config, image),
        uid=user.uid,
        gid=user.gid,
        groups=list(user.groups),
    )
    gathered = await asyncio.to_thread(_gather, runtime, sandbox, container_id, config, image, user, image_roots)
    spec = container_spec(gathered)
    if config.CDI_devices:
        names = [device.name for device in config.CDI_devices]
        cdi.apply(spec, await asyncio.to_thread(cdi.edits, names, runtime.config.cdi_spec_dirs))
    ctd = runtime.containerd
    snapshot = api.snapshots.PrepareSnapshotRequest(
        snapshotter=runtime.config.snapshotter,
        key=container_id,
        parent=image.chain_id,
        # Not collected although nothing refers to it until the container object does.
        labels={"containerd.io/gc.root": "cutaway", CONTAINER_LABEL: container_id},
    )
    extension = api.well_known.Any(type_url=records.EXTENSION_TYPE, value=records.encode(record))
    created = api.containers.Container(
        id=container_id,
        # Never the image's or the pod's labels: an image must not be able to speak to containerd's plugins.
        labels={CONTAINER_LABEL: container_id},
        image=image.name,
        runtime=api.containers.Container.Runtime(name=runtime.config.runtime, options=runc_options(runtime)),
        spec=api.well_known.Any(type_url=SPEC_TYPE, value=msgspec.json.encode(spec)),
        snapshotter=runtime.config.snapshotter,
        snapshot_key=container_id,
        extensions={records.EXTENSION_NAME: extension},
    )
    await ctd.snapshots.Prepare(snapshot)
    await ctd.containers.Create(api.containers.CreateContainerRequest(container=created))
    container = Container(container_id, record, StatusRecord(), runtime.root)
    container.root.mkdir(mode=0o700, parents=True)
    container.save()
    return container


@contextlib.asynccontextmanager
async def _undone_on_failure(runtime: Runtime, container_id: str, config: cri.ContainerConfig) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:
        await asyncio.shield(_undo(runtime, container_id))
        if isinstance(error, OSError):
            raise Internal(f"container {config.metadata.name}: {error}") from error
        raise


async def _undo(runtime: Runtime, container_id: str) -> None:
    """Whatever of these exists goes; what can't go now is found as unowned at the next start."""
    with contextlib.suppress(CriError):
        await runtime.containerd.containers.Delete(api.containers.DeleteContainerRequest(id=container_id))
    with contextlib.suppress(CriError):
        await remove_snapshot(runtime, container_id)
    with contextlib.suppress(CriError, OSError):
        await volumes.release(runtime, container_id)
    runtime.store.containers.remove(container_id)


def _stop_signal(config: cri.ContainerConfig, image: ImageInfo) -> str:
    if config.stop_signal:
        return str(cri.Signal.Name(config.stop_signal))
    return image.stop_signal


def _gather(
    runtime: Runtime,
    sandbox: Sandbox,
    container_id: str,
    config: cri.ContainerConfig,
    image: ImageInfo,
    user: User,
    image_roots: dict[int, str],
) -> SpecInput:
    """The spec's input: all that has to be looked up on this node. Blocking."""
    context = config.linux.security_context
    profile = oci_security.seccomp_profile(context, runtime.config.seccomp_default)
    document = b""
    if profile.kind == "localhost":
        try:
            document = Path(profile.reference).read_bytes()
        except OSError as error:
            raise InvalidArgument(f"seccomp profile {profile.reference}: {error.strerror}") from error
    mapped = {
        index
        for index, mount in enumerate(config.mounts)
        # An image volume was mounted mapped.
        if index not in image_roots and id_maps.of_mount(mount, sandbox.ids)
    }
    stage = Stage(runtime.stages / container_id)
    sources = [image_roots.get(i) or _source(mount) for i, mount in enumerate(config.mounts)]
    hostname_file, resolv_conf = str(sandbox.root / "hostname"), str(sandbox.root / "resolv.conf")
    shown = [str(stage.source(i)) if i in mapped else source for i, source in enumerate(sources)]
    locked = {}
    if sandbox.ids:
        pairs = [(hostname_file, hostname_file), (resolv_conf, resolv_conf), *zip(shown, sources, strict=True)]
        locked = {path: _mount_options(source) for path, source in pairs}
    return SpecInput(
        container_id=container_id,
        sandbox_id=sandbox.id,
        config=config,
        sandbox=sandbox.config,
        image_config=image.config,
        user=user,
        mount_sources=shown,
        devices=_devices(config),
        namespaces=_namespaces(runtime, sandbox, config),
        hostname_file=hostname_file,
        resolv_conf=resolv_conf,
        shm="/dev/shm" if sandbox.namespace_options.ipc == oci_parts.NODE else str(sandbox.state / "shm"),  # noqa: S108
        ids=sandbox.ids,
        locked=locked,
        root=str(stage.root) if sandbox.ids else "rootfs",
        seccomp_document=document,
        node=node_facts.facts(),
        settings=runtime.config,
    )


def _namespaces(runtime: Runtime, sandbox: Sandbox, config: cri.ContainerConfig) -> dict[str, str]:
    options = config.linux.security_context.namespace_options
    pod = sandbox.namespace_options
    if options.HasField("userns_options") and id_maps.of_pod(options) != sandbox.ids:
        raise InvalidArgument("userns_options: a container's must be those of its sandbox")
    result = {"mount": ""}
    if sandbox.netns:
        result |= {"network": str(sandbox.netns), "uts": str(sandbox.state / "uts")}
    if pod.ipc != cri.NODE:
        result["ipc"] = str(sandbox.state / "ipc")
    if sandbox.ids:
        result["user"] = str(sandbox.state / "user")
    if options.pid == cri.CONTAINER:
        result["pid"] = ""
    elif options.pid == cri.POD:
        result["pid"] = str(sandbox.state / "pid") if pod.pid == cri.POD else ""
    elif options.pid == cri.TARGET:
        target = runtime.store.containers.get(options.target_id)
        if target.sandbox_id != sandbox.id or not target.status.pid:
            raise FailedPrecondition(f"target container {options.target_id} does not run in this pod")
        result["pid"] = f"/proc/{target.status.pid}/ns/pid"
    if node_facts.facts().cgroup_v2 and not config.linux.security_context.privileged:
        result["cgroup"] = ""
    return result


def _source(mount: cri.Mount) -> str:
    """The host path of a mount with its links resolved; one that is not there becomes a directory."""
    if not mount.host_path.startswith("/"):
        raise InvalidArgument(f"mounts: host_path {mount.host_path!r} is not absolute")
    try:
        path = os.path.realpath(mount.host_path)
        if not os.path.exists(path):
            os.makedirs(path, mode=0o755)
    except OSError as error:
        raise NotFound(f"mounts: host_path {mount.host_path}: {error.strerror}") from error
    return path


def _mount_options(path: str) -> tuple[str, ...]:
    """What the mount that holds `path` forbids."""
    flags = os.statvfs(path).f_flag
    names = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}
    return tuple(name for flag, name in names.items() if flags & flag)


def _devices(config: cri.ContainerConfig) -> list[Device]:
    if config.linux.security_context.privileged:
        found = _device_tree("/dev", "/dev", "rwm")
        # A container has terminals, shared memory and queues of its own.
        skipped = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/.")  # noqa: S108
        return [device for device in found if not device.path.startswith(skipped)]
    result: list[Device] = []
    for device in config.devices:
        result += _device_tree(os.path.realpath(device.host_path), device.container_path, device.permissions or "rwm")
        if not result:
            raise InvalidArgument(f"devices: {device.host_path} is not a device and holds none")
    return result


def _device_tree(host: str, inside: str, access: str) -> list[Device]:
    """The device at a path, or all those below a directory."""
    try:
        info = os.lstat(host)
    except OSError as error:
        raise NotFound(f"devices: {host}: {error.strerror}") from error
    if stat.S_ISDIR(info.st_mode):
        result: list[Device] = []
        for entry in sorted(os.listdir(host)):
            with contextlib.suppress(NotFound):
                result += _device_tree(os.path.join(host, entry), os.path.join(inside, entry), access)
        return result
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return []
    return [
        Device(
            path=inside,
            kind=kind,
            major=os.major(info.st_rdev),
            minor=os.minor(info.st_rdev),
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            access=access,
        )
    ]

"""RunPodSandbox: namespaces, network, files; no process unless the pod shares its pid namespace.

A failure at any step takes back the steps before it, in reverse, and the first error is the one that is told.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from cri import id_maps, kernel, namespaces, pause, status
from cri.cni import resolv_conf
from cri.errors import CriError, Internal, InvalidArgument, Unimplemented
from cri.logs import log
from cri.records import SandboxRecord
from cri.runtime import Runtime
from cri.sandbox_stop import release
from cri.state import Sandbox, new_id, now, sandbox_name

SHM_BYTES = 64 * 1024 * 1024
_HANDLERS = ("", "runc")


async def run_pod_sandbox(runtime: Runtime, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
    config = request.config
    validate(config, request.runtime_handler, user_namespaces=runtime.user_namespaces)
    sandbox_id = new_id()
    runtime.store.sandboxes.reserve(sandbox_name(config.metadata), sandbox_id)
    options = config.linux.security_context.namespace_options
    record = SandboxRecord(
        id=sandbox_id,
        config=config.SerializeToString(),
        runtime_handler=request.runtime_handler,
        created_at=now(),
        ready=False,
        host_network=options.network == cri.NODE,
    )
    sandbox = Sandbox(record, runtime.root, runtime.state)
    async with _undone_on_failure(runtime, sandbox):
        await asyncio.to_thread(_prepare, sandbox)
        if sandbox.netns:
            record.ips = await runtime.cni.add(sandbox_id, sandbox.netns, config, sandbox.root / "cni.json")
        if config.linux.sysctls:
            await asyncio.to_thread(namespaces.apply_sysctls, sandbox.state, dict(config.linux.sysctls), sandbox.ids)
        if options.pid == cri.POD:
            record.init_pid = await pause.start(runtime, sandbox)
        record.ready = True
        sandbox.save()
    runtime.store.sandboxes.add(sandbox)
    status.publish(runtime, cri.CONTAINER_CREATED_EVENT, sandbox)
    status.publish(runtime, cri.CONTAINER_STARTED_EVENT, sandbox)
    return cri.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)


def validate(config: cri.PodSandboxConfig, handler: str, *, user_namespaces: bool = False) -> None:
    """Refuses what can't be before anything is made."""
    metadata = config.metadata
    if not metadata.name or not metadata.uid:
        raise InvalidArgument("config.metadata: name and uid are required")
    if handler not in _HANDLERS:
        raise InvalidArgument(f"runtime_handler {handler!r} is not known; there is only 'runc'")
    options = config.linux.security_context.namespace_options
    if id_maps.of_pod(options) is not None and not user_namespaces:
        raise Unimplemented("user namespaces: this node's kernel has none for us, or can't mount files with mapped ids")
    for name in config.linux.sysctls:
        kind = namespaces.sysctl_namespace(name)
        if not kind:
            raise InvalidArgument(f"sysctl {name!r} belongs to the node, not to a pod")
        if (kind == "net" and options.network == cri.NODE) or (kind == "ipc" and options.ipc == cri.NODE):
            raise InvalidArgument(f"sysctl {name!r} is not a pod's own when the pod uses the node's {kind} namespace")


@contextlib.asynccontextmanager
async def _undone_on_failure(runtime: Runtime, sandbox: Sandbox) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:
        await asyncio.shield(_undo(runtime, sandbox))
        if isinstance(error, OSError):
            raise Internal(f"sandbox of pod {sandbox.config.metadata.name}: {error}") from error
        raise


async def _undo(runtime: Runtime, sandbox: Sandbox) -> None:
    try:
        await release(runtime, sandbox)
        shutil.rmtree(sandbox.root, ignore_errors=True)
    except (CriError, OSError) as error:
        # The record stays on disk as a sandbox that is not ready, so that it is listed and removed later.
        log.error("a failed sandbox could not be taken back", sandbox=sandbox.id, error=str(error))
        runtime.store.sandboxes.add(sandbox)
        return
    runtime.store.sandboxes.release(sandbox.id)


def _prepare(sandbox: Sandbox) -> None:
    """Directories, record, namespaces, /dev/shm and the files of /etc. Blocking."""
    sandbox.root.mkdir(mode=0o700, parents=True)
    sandbox.state.mkdir(mode=0o711, parents=True)
    sandbox.save()
    options = sandbox.namespace_options
    kinds = [] if options.network == cri.NODE else ["net", "uts"]
    if options.ipc != cri.NODE:
        kinds.append("ipc")
    hostname = sandbox.config.hostname
    if kinds:
        named = hostname if "uts" in kinds else ""
        namespaces.create(sandbox.state, kinds, hostname=named, ids=sandbox.ids)
    if options.ipc != cri.NODE:
        shm = sandbox.state / "shm"
        shm.mkdir()
        flags = kernel.MS_NOEXEC | kernel.MS_NOSUID | kernel.MS_NODEV
        root = sandbox.ids.host_id if sandbox.ids else 0
        kernel.mount("shm", str(shm), "tmpfs", flags, f"mode=1777,size={SHM_BYTES},uid={root},gid={root}")
    _write_etc(sandbox, hostname)


def _write_etc(sandbox: Sandbox, hostname: str) -> None:
    (sandbox.root / "hostname").write_text(f"{hostname or os.uname().nodename}\n", encoding="utf-8")
    dns = sandbox.config.dns_config
    text = resolv_conf(dns.servers, dns.searches, dns.options)
    if not text:
        with contextlib.suppress(OSError):
            text = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    (sandbox.root / "resolv.conf").write_text(text, encoding="utf-8")
    for name in ("hostname", "resolv.conf"):
        (sandbox.root / name).chmod(0o644)

"""The process that holds a shared pid namespace (`shareProcessNamespace`): the only pod that needs one.

The program is written out here as the few instructions that it is, because no image and no system package may be
assumed: ignore SIGCHLD, so that the kernel reaps orphans by itself, then sleep for ever. It runs as pid 1 of the
pod's pid namespace in a read-only root that holds nothing else, with no capabilities. The namespace is pinned like
the others, so joining it never depends on a pid that may be used again.
"""

import asyncio
import contextlib
import os
import platform
import struct
from pathlib import Path

import msgspec

from cri import containerd_api as api
from cri import kernel, oci_pause, orphans
from cri.containerd_client import SPEC_TYPE
from cri.errors import NotFound, Unimplemented
from cri.idmapped import Stage
from cri.runtime import Runtime
from cri.state import Sandbox

SANDBOX_LABEL = "cutaway.dev/sandbox"
_BASE = 0x400000

# rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8); for (;;) pause();  `act` is the zero-padded struct after the code.
_X86_64 = bytes.fromhex(
    "b80d000000"  # mov eax, 13        rt_sigaction
    "bf11000000"  # mov edi, 17        SIGCHLD
    "488d3519000000"  # lea rsi, [rip+25]  act
    "31d2"  # xor edx, edx
    "41ba08000000"  # mov r10d, 8
    "0f05"  # syscall
    "b822000000"  # mov eax, 34        pause
    "0f05"  # syscall
    "ebf7"  # jmp back to mov eax, 34
    "909090909090"  # up to act
)
# The same with ppoll(NULL, 0, NULL, NULL), since arm64 has no pause(2).
_AARCH64 = struct.pack(
    "<12I",
    0xD28010C8,  # mov x8, #134        rt_sigaction
    0xD2800220,  # mov x0, #17         SIGCHLD
    0x10000141,  # adr x1, #40         act
    0xD2800002,  # mov x2, #0
    0xD2800103,  # mov x3, #8
    0xD4000001,  # svc #0
    0xD2800928,  # mov x8, #73         ppoll
    0xD2800000,  # mov x0, #0
    0xAA1F03E1,  # mov x1, xzr
    0xAA1F03E3,  # mov x3, xzr
    0xD4000001,  # svc #0
    0x17FFFFFB,  # b back to mov x8, #73
)
_ACT = struct.pack("<QQQQ", 1, 0, 0, 0)  # SIG_IGN, no flags, no restorer, empty mask


def program(machine: str) -> bytes:
    """A static ELF executable for the machine; raises Unimplemented for one that has none here."""
    known = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
    if machine not in known:
        raise Unimplemented(f"a shared pid namespace: there is no pause program for {machine}")
    number, code = known[machine]
    body = code + _ACT
    start = 64 + 56
    size = start + len(body)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + body


def _root(runtime: Runtime) -> Path:
    """The read-only root file system of every pause process, written on first use."""
    root = runtime.root / "pause"
    path = root / "pause"
    content = program(platform.machine())
    if not path.exists() or path.read_bytes() != content:
        for name in ("proc", "dev", "sys"):
            (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = root / ".pause.new"
        temporary.write_bytes(content)
        temporary.chmod(0o755)
        os.replace(temporary, path)
    return root


async def start(runtime: Runtime, sandbox: Sandbox) -> int:
    """Starts a sandbox's first process, pins its pid namespace, and returns its pid."""
    ctd = runtime.containerd
    # A pod's own users may not reach the task's directory; the root of every pause process is open to all.
    stage = Stage(runtime.stages / sandbox.id)
    spec = oci_pause.spec(sandbox, runtime.config, str(stage.root) if sandbox.ids else "rootfs")
    container = api.containers.Container(
        id=sandbox.id,
        labels={SANDBOX_LABEL: sandbox.id},
        runtime=api.containers.Container.Runtime(name=runtime.config.runtime, options=runc_options(runtime)),
        spec=api.well_known.Any(type_url=SPEC_TYPE, value=msgspec.json.encode(spec)),
    )
    await ctd.containers.Create(api.containers.CreateContainerRequest(container=container))
    mount = api.types.Mount(type="bind", source=str(_root(runtime)), options=["rbind", "ro"])
    try:
        if sandbox.ids:
            stage.make_plain(_root(runtime))
        rootfs = [] if sandbox.ids else [mount]
        await ctd.tasks.Create(api.tasks.CreateTaskRequest(container_id=sandbox.id, rootfs=rootfs))
    finally:
        if sandbox.ids:
            stage.remove()
    pid = int((await ctd.tasks.Start(api.tasks.StartRequest(container_id=sandbox.id))).pid)
    target = sandbox.state / "pid"
    target.touch(mode=0o600)
    kernel.mount(f"/proc/{pid}/ns/pid", str(target), flags=kernel.MS_BIND)
    return pid


async def stop(runtime: Runtime, sandbox: Sandbox) -> None:
    """Ends it and everything left in its pid namespace. Idempotent."""
    ctd = runtime.containerd
    with contextlib.suppress(NotFound):
        await ctd.tasks.Kill(api.tasks.KillRequest(container_id=sandbox.id, signal=9, all=True))
        await ctd.tasks.Wait(api.tasks.WaitRequest(container_id=sandbox.id))
    try:
        await ctd.tasks.Delete(api.tasks.DeleteTaskRequest(container_id=sandbox.id))
    except NotFound:
        if not sandbox.ready:  # its start may have been interrupted
            await asyncio.to_thread(orphans.end, sandbox.id, runtime.config, shim_too=True)
    with contextlib.suppress(NotFound):
        await ctd.containers.Delete(api.containers.DeleteContainerRequest(id=sandbox.id))


def runc_options(runtime: Runtime) -> object:
    """containerd.runc.v1.Options as an Any."""
    config = runtime.config
    options = api.message(api.RUNC_OPTIONS_TYPE)(
        systemd_cgroup=config.systemd_cgroup, root=config.runc_root, binary_name=config.runc_binary
    )
    return api.well_known.Any(type_url=api.RUNC_OPTIONS_TYPE, value=options.SerializeToString())

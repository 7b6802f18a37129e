"""A containerd of the test's own: its root, state, socket, CNI network and cgroup below one temporary directory.

Nothing is shared with another test or another containerd on the machine; `stop` ends what was started, unmounts what
was mounted, and deletes the bridge.
"""

import contextlib
import ipaddress
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc

from tests.support import cgroups, cni

CNI_BIN = "/usr/lib/cni"
_ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


def available() -> str:
    """Why real containers can't run here, or "" if they can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("containerd", "runc"):
        if not shutil.which(program):
            return f"needs {program}"
    return "" if Path(CNI_BIN, "bridge").exists() else f"needs the CNI plugins in {CNI_BIN}"


def wait_until(condition, seconds=20.0, what="condition"):
    """Polls a condition of another process."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError(f"{what} did not come true in {seconds:g} s")


class Containerd:
    """containerd as a child process, with or without its own CRI plugin."""

    def __init__(self, directory: Path, *, cri_plugin: bool = False, streaming_port: int = 0) -> None:
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self.cni_conf = directory / "cni"
        self.cri_plugin = cri_plugin
        self._streaming_port = streaming_port
        self._process: subprocess.Popen[bytes] | None = None
        number = next(_numbers)
        self.bridge = f"ct{os.getpid() % 100000}x{number}"[:15]
        base = int(ipaddress.ip_address("10.201.0.0")) + ((os.getpid() * 7 + number) % 200) * 256
        self.subnet = f"{ipaddress.ip_address(base)}/24"

    def _config(self) -> str:
        disabled = [
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
            "io.containerd.internal.v1.opt",
            "io.containerd.tracing.processor.v1.otlp",
            "io.containerd.internal.v1.tracing",
        ]
        if not self.cri_plugin:
            disabled.append("io.containerd.grpc.v1.cri")
        text = f"""version = 2
root = "{self.directory}/root"
state = "{self.directory}/state"
disabled_plugins = {json.dumps(disabled)}
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.directory}/containerd.ttrpc.sock"
[debug]
  level = "warn"
"""
        if self.cri_plugin:
            text += f"""[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "{self._streaming_port}"
  sandbox_image = "cutaway.test/busybox:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_BIN}"
    conf_dir = "{self.cni_conf}"
"""
        return text

    def write_cni(self) -> None:
        """A bridge network of this test's own, with host ports."""
        self.cni_conf.mkdir(exist_ok=True)
        plugins = [
            {
                "type": "bridge",
                "bridge": self.bridge,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": self.subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": f"{self.directory}/ipam",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ]
        conf = {"cniVersion": "1.0.0", "name": self.bridge, "plugins": plugins}
        (self.cni_conf / "10-test.conflist").write_text(json.dumps(conf))

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.cni_conf.exists():
            self.write_cni()
        config = self.directory / "containerd.toml"
        config.write_text(self._config())
        with (self.directory / "containerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        channel = grpc.insecure_channel(f"unix://{self.socket}")
        try:
            grpc.channel_ready_future(channel).result(timeout=20)
        finally:
            channel.close()

    def kill(self) -> None:
        """SIGKILL: what a crash of containerd leaves."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends containerd, its shims and their containers, and takes away every mount and the bridge."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in shims_of(self.socket):
            _kill_tree(pid)
        unmount_below(self.directory)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        cni.remove_portmap_chains()
        remove_cgroups(f"cutaway-test-{self.directory.name}")


def shims_of(socket: Path) -> list[int]:
    """The containerd-shim processes that belong to a containerd socket."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().split(b"\0")
                if command[0].endswith(b"containerd-shim-runc-v2") and str(socket).encode() in command:
                    found.append(int(path.name))
    return found


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _kill_tree(pid: int) -> None:
    for child in children_of(pid):
        _kill_tree(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_cgroups(name: str) -> None:
    """Remove a cgroup of this name and all below it, in every hierarchy.

    What was just killed leaves it within a moment.
    """
    roots = [path for pattern in (name, f"*/{name}") for path in Path("/sys/fs/cgroup").glob(pattern)]
    deadline = time.monotonic() + 5
    while (left := [root for root in roots if root.is_dir()]) and time.monotonic() < deadline:
        for directory in [path for root in left for path in cgroups.below(root)]:
            with contextlib.suppress(OSError):
                directory.rmdir()
        select.select([], [], [], 0.05)


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{directory}/")]


def unmount_below(directory: Path) -> None:
    for mount in sorted(mounts_below(directory), key=len, reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)


class Shim:
    """`python -m cri` as a child process on a containerd."""

    def __init__(self, containerd: Containerd, directory: Path, **settings: object) -> None:
        self.containerd = containerd
        self.directory = directory
        self.socket = directory / "cri.sock"
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = {
            "socket": str(self.socket),
            "containerd": str(self.containerd.socket),
            "root": str(self.directory / "root"),
            "state": str(self.directory / "state"),
            "cni": {"conf_dir": str(self.containerd.cni_conf), "bin_dirs": [CNI_BIN]},
            **self._settings,
        }
        path = self.directory / "cri.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        with (self.directory / "cri.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cri", "--config", str(path)],
                cwd=_ROOT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        assert self.process
        process = self.process

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the shim ended with {process.returncode}: {self.log()[-2000:]}")
            return self.socket.exists()

        wait_until(ready, what="the shim's socket")

    def log(self) -> str:
        return (self.directory / "cri.log").read_text()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        unmount_below(self.directory)

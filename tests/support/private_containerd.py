"""A containerd of a test's own.

Its own root, state, socket, CNI network and images, and nothing left when it is closed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from tests.support import cni

PAUSE_IMAGE = "registry.k8s.io/pause:3.9"
BUSYBOX_IMAGE = "docker.io/library/busybox:1.36"
_APPLETS = (
    "sh", "sleep", "cat", "echo", "ls", "id", "env", "true", "false", "touch", "mkdir", "nc", "httpd", "wget", "kill",
    "ps", "test", "printf", "date", "head", "tail", "hostname", "stat", "readlink", "rm", "ln", "mv", "dd", "ip",
    "mount", "grep", "seq", "yes", "wc", "sysctl", "umount", "chmod", "chown", "tar",
)  # fmt: skip


def available() -> bool:
    """Whether this machine can run containers for a test."""
    return os.geteuid() == 0 and all(shutil.which(p) for p in ("containerd", "runc", "ctr", "busybox"))


def busybox_archive(path: Path, name: str, command: list[str]) -> None:
    """An OCI archive whose only layer is a busybox."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var", "home"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(info)
        binary = Path("/usr/bin/busybox" if Path("/usr/bin/busybox").exists() else "/bin/busybox").read_bytes()
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = len(binary), 0o755
        tar.addfile(info, io.BytesIO(binary))
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
        info = tarfile.TarInfo("etc/passwd")
        info.size = len(passwd)
        tar.addfile(info, io.BytesIO(passwd))
    _write_oci(path, name, layer.getvalue(), command)


def _write_oci(path: Path, name: str, layer: bytes, command: list[str]) -> None:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
        }
    ).encode()
    blobs = {sha256(b).hexdigest(): b for b in (layer, config)}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
    ).encode()
    blobs[sha256(manifest).hexdigest()] = manifest
    entry = _descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name}
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w") as tar:
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        files |= {f"blobs/sha256/{digest}": blob for digest, blob in blobs.items()}
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _descriptor(blob: bytes, media_type: str) -> dict:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(blob).hexdigest()}", "size": len(blob)}


class PrivateContainerd:
    """Use as a context manager. `endpoint` is the socket of its CRI plugin and of containerd's own API."""

    def __init__(
        self, prefix: str = "kubelet-test-", subnet: str = "10.216.0.0/24", bridge: str = "kt0", *, shim: bool = False
    ) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix=prefix))
        self.socket = self.dir / "containerd.sock"
        self.endpoint = f"unix://{self.socket}"
        self.bridge = bridge
        self._subnet = subnet
        self._shim = shim
        self._shim_process: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateContainerd:
        self._write_config()
        self.start()
        self._import_images()
        if self._shim:
            self.start_shim()
        return self

    def start_shim(self) -> None:
        """Start (again) Cutaway's own CRI server over this containerd."""
        self.endpoint = f"unix://{self.dir}/cri.sock"
        config = {
            "socket": f"{self.dir}/cri.sock", "containerd": str(self.socket), "root": f"{self.dir}/shim-root",
            "state": f"{self.dir}/shim-state", "cni": {"conf_dir": f"{self.dir}/cni", "bin_dirs": ["/usr/lib/cni"]},
            "cdi_spec_dirs": [f"{self.dir}/cdi"],
        }  # fmt: skip
        (self.dir / "cri.yaml").write_text(json.dumps(config))
        with (self.dir / "cri.log").open("ab") as log:
            arguments = [sys.executable, "-m", "cri", "--config", str(self.dir / "cri.yaml")]
            root = Path(__file__).parents[2]
            self._shim_process = subprocess.Popen(arguments, cwd=root, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not (self.dir / "cri.sock").exists():
            if time.monotonic() > deadline or self._shim_process.poll() is not None:
                raise RuntimeError((self.dir / "cri.log").read_text()[-2000:])
            time.sleep(0.05)

    def kill_shim(self) -> None:
        """SIGKILL to the shim; its containers go on."""
        assert self._shim_process is not None
        self._shim_process.kill()
        self._shim_process.wait()
        Path(self.dir / "cri.sock").unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_config(self) -> None:
        cni = self.dir / "cni"
        cni.mkdir()
        conflist = {
            "cniVersion": "0.4.0",
            "name": "kubelet-test",
            "plugins": [
                {
                    "type": "bridge", "bridge": self.bridge, "isGateway": True, "ipMasq": False, "hairpinMode": True,
                    "ipam": {"type": "host-local", "subnet": self._subnet, "dataDir": str(self.dir / "ipam"),
                             "routes": [{"dst": "0.0.0.0/0"}]},
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }  # fmt: skip
        (cni / "10-test.conflist").write_text(json.dumps(conflist))
        (self.dir / "config.toml").write_text(
            f"""version = 2
root = "{self.dir}/root"
state = "{self.dir}/state"
disabled_plugins = [{'"io.containerd.grpc.v1.cri", ' if self._shim else ""}
  "io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""
        )

    def start(self) -> None:
        """Start the daemon (again) and wait until it answers."""
        log = (self.dir / "containerd.log").open("ab")
        self._process = subprocess.Popen(
            ["containerd", "--config", str(self.dir / "config.toml")], stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 20
        while not self.socket.exists() or self._ctr("version", check=False) != 0:
            if time.monotonic() > deadline:
                raise RuntimeError((self.dir / "containerd.log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the daemon; its containers go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _ctr(self, *arguments: str, check: bool = True) -> int:
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.decode()}")
        return done.returncode

    def _import_images(self) -> None:
        for name, command in ((BUSYBOX_IMAGE, ["sh"]), (PAUSE_IMAGE, ["/bin/sleep", "infinity"])):
            archive = self.dir / "image.tar"
            busybox_archive(archive, name, command)
            self._ctr("images", "import", str(archive))
            archive.unlink()

    def close(self) -> None:
        """End every container, the daemon, its network, its files."""
        if self._process is not None:
            self._end_containers()
        if self._shim_process is not None:
            self._shim_process.terminate()
            self._shim_process.wait(10)
        self.stop()
        for mount in sorted(self._mounts(), key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)
        cni.remove_portmap_chains()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _end_containers(self) -> None:
        import grpc
        from cri_api.v1 import api_pb2 as cri
        from cri_api.v1 import api_pb2_grpc

        with grpc.insecure_channel(self.endpoint, options=[("grpc.default_authority", "localhost")]) as channel:
            stub = api_pb2_grpc.RuntimeServiceStub(channel)
            for item in stub.ListPodSandbox(cri.ListPodSandboxRequest()).items:
                with contextlib.suppress(grpc.RpcError):
                    stub.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=item.id))
                    stub.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=item.id))

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in lines if line.split()[4].startswith(str(self.dir))]

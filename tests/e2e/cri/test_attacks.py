"""What the shim must refuse or bear: images and requests made to harm the node. CVE numbers name the lesson."""

import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from cri.images.build import build
from tests.support.cri_client import code_of
from tests.support.images import busybox_root


def _image(node, tmp_path: Path, name: str, config: dict | None = None, change=None) -> str:
    """Builds an image from a changed busybox root and loads it."""
    root = busybox_root(tmp_path)
    if change:
        change(root)
    archive = tmp_path / "image.tar"
    build(root, name, archive, {"Cmd": ["sleep", "1000"], **(config or {})})
    return node.load(archive)


def _ctr(node, *args: str) -> str:
    command = ["ctr", "-a", str(node.containerd.socket), "-n", "k8s.io", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_image_labels_never_become_containerd_labels(node, tmp_path: Path) -> None:
    """CVE-2026-53488: containerd acts on labels; an image must not be able to set them."""
    evil = {"containerd.io/restart.status": "running", "evil": "yes", "x" * 5000: "y"}
    name = _image(node, tmp_path, "cutaway.test/labels:1", {"Labels": evil})
    pod = node.client.run_pod(node.client.pod_config(labels={"pod-label": "x" * 5000}))
    container = pod.run(config=pod.container_config(image=name, labels={"container-label": "z"}))
    info = json.loads(_ctr(node, "containers", "info", container.id))
    assert info["Labels"] == {"cutaway.dev/container": container.id}
    images = _ctr(node, "images", "ls")
    assert "evil" not in images
    assert "restart.status" not in images


@pytest.mark.parametrize("user", [str(2**31), str(2**32), str(2**32 + 1), "-1", f"0:{2**32}", f"{2**63}"])
def test_user_ids_past_the_bound_are_refused(node, tmp_path: Path, user: str) -> None:
    """CVE-2024-40635: an id that wraps round runs as root."""
    name = _image(node, tmp_path, f"cutaway.test/user{abs(hash(user))}:1", {"User": user})
    pod = node.client.run_pod()
    assert code_of(lambda: pod.create("id", image=name)) == "INVALID_ARGUMENT"
    config = pod.container_config("id")
    config.linux.security_context.run_as_user.value = 2**31
    assert code_of(lambda: pod.create(config=config)) == "INVALID_ARGUMENT"


def test_the_output_of_exec_sync_is_bounded(node) -> None:
    """CVE-2022-31030."""
    pod = node.client.run_pod()
    container = pod.run("sleep", "1000")
    before = _rss(node)
    answer = container.exec("sh", "-c", "head -c 100000000 /dev/zero; echo end >&2", timeout=60)
    assert len(answer.stdout) == 16 * 1024 * 1024
    assert answer.stderr == b"end\n"
    assert _rss(node) - before < 80_000


def _rss(node) -> int:
    text = Path(f"/proc/{node.shim.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def test_accounts_behind_a_symbolic_link_are_the_images_own(node, tmp_path: Path) -> None:
    secret = tmp_path / "outside-passwd"
    secret.write_text("intruder:x:4242:4242::/:/bin/sh\n")

    def change(root: Path) -> None:
        (root / "etc/passwd").unlink()
        (root / "etc/passwd").symlink_to(f"../../../../../../../..{secret}")
        (root / "etc/group").unlink()
        os.mkfifo(root / "etc/group")

    name = _image(node, tmp_path / "i", "cutaway.test/passwd:1", None, change)
    pod = node.client.run_pod()
    config = pod.container_config("id", image=name)
    config.linux.security_context.run_as_username = "intruder"
    assert code_of(lambda: pod.create(config=config)) == "NOT_FOUND"


def test_an_image_volume_stays_inside_its_image(node, tmp_path: Path) -> None:
    """CVE-2022-23648: a volume path that is a link to the node's files."""

    def change(root: Path) -> None:
        (root / "escape").symlink_to("/etc")
        (root / "data").mkdir()
        (root / "data/file").write_text("of the image")
        (root / "etc/only-in-image").write_text("image")

    name = _image(node, tmp_path, "cutaway.test/volume:1", None, change)
    pod = node.client.run_pod()
    for sub_path, script, expected in (
        ("", "cat /v/data/file; touch /v/x 2>&1 | grep -c Read-only", "of the image1\n"),
        ("data", "cat /v/file", "of the image"),
        ("data/file", "cat /v", "of the image"),
        ("escape", "ls /v", "group\nonly-in-image\npasswd\n"),
    ):
        mount = cri.Mount(container_path="/v", image=cri.ImageSpec(image=name), image_sub_path=sub_path, readonly=True)
        assert pod.shell(script, config=pod.container_config(mounts=[mount])).replace("\n", "") == expected.replace(
            "\n", ""
        )
    mount = cri.Mount(container_path="/v", image=cri.ImageSpec(image=name), image_sub_path="../../../etc/shadow")
    assert code_of(lambda: pod.create("true", config=pod.container_config("true", mounts=[mount]))) == "NOT_FOUND"
    for container in node.client.containers():
        node.client.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container.id))
    assert not list((node.directory / "shim/state/image-volumes").iterdir())


def test_sockets_are_files_that_only_root_may_open(node) -> None:
    """CVE-2020-15257: an abstract socket is reachable from a pod on the node's network."""
    mode = os.stat(node.shim.socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    inodes = {os.readlink(fd) for fd in Path(f"/proc/{node.shim.process.pid}/fd").iterdir() if _is_socket(fd)}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[6]}]" in inodes:
            assert len(fields) < 8 or not fields[7].startswith("@")


def _is_socket(fd: Path) -> bool:
    try:
        return os.readlink(fd).startswith("socket:")
    except OSError:
        return False


def test_a_log_path_can_not_leave_its_directory(node) -> None:
    pod = node.client.run_pod()
    for path in ("../../outside.log", "/etc/outside.log", "a/../../b.log"):
        config = pod.container_config("echo", "x")
        config.log_path = path
        assert code_of(lambda config=config: pod.run(config=config)) == "INVALID_ARGUMENT"
    victim = node.directory / "victim"
    victim.write_text("untouched")
    config = pod.container_config("echo", "overwritten")
    os.symlink(victim, Path(pod.config.log_directory) / config.log_path)
    assert code_of(lambda: pod.run(config=config)) != "OK"
    assert victim.read_text() == "untouched"


def test_a_sysctl_of_the_node_is_refused(node) -> None:
    for name in ("kernel.core_pattern", "vm.overcommit_memory", "net/../kernel/core_pattern", "net.ipv4/../../x"):
        config = node.client.pod_config()
        config.linux.sysctls[name] = "1"
        assert code_of(lambda config=config: node.client.run_pod(config)) != "OK", name
    assert node.client.sandboxes() == []


def _write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"index.json": b"not json"},
        {"index.json": b"{}"},
        {"index.json": b'{"manifests":[{"mediaType":"x","digest":"sha256:../../etc/passwd","size":1}]}'},
        {
            "index.json": json.dumps(
                {"manifests": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}]}
            ).encode()
        },
        {"manifest.json": b'[{"Config":"../../../etc/passwd","Layers":[]}]'},
        {"manifest.json": b"[" * 100_000},
        {"index.json": b'{"manifests":[{}]}'},
        {"index.json": b'{"manifests":7}'},
        {"manifest.json": b'[{"Layers":{}}]'},
    ],
    ids=[
        "empty",
        "no-json",
        "no-manifest",
        "digest-path",
        "absent-blob",
        "config-path",
        "deep",
        "no-fields",
        "no-list",
        "no-config",
    ],
)
def test_a_broken_archive_is_refused_in_one_line(node, tmp_path: Path, files: dict[str, bytes]) -> None:
    archive = _write_tar(tmp_path / "bad.tar", files)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        node.load(archive)
    assert caught.value.returncode == 1
    assert len(caught.value.stderr.strip().splitlines()) == 1
    assert caught.value.stderr.startswith("image load: ")


def test_a_layer_that_lies_about_its_content_is_refused(node, tmp_path: Path) -> None:
    root = busybox_root(tmp_path)
    archive = tmp_path / "image.tar"
    (root / "unique").write_text("so that the layer is not there already")
    build(root, "cutaway.test/liar:1", archive, {})
    files: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            files[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    layer = max(files, key=lambda name: len(files[name]))
    files[layer] = files[layer][:-1] + bytes([files[layer][-1] ^ 1])
    with pytest.raises(subprocess.CalledProcessError) as caught:
        node.load(_write_tar(tmp_path / "liar.tar", files))
    assert layer.rsplit("/", 1)[-1] in caught.value.stderr
    status = node.client.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image="cutaway.test/liar:1")))
    assert not status.HasField("image")


def test_a_container_that_floods_its_output_stops_nobody_else(node) -> None:
    pod = node.client.run_pod()
    flood = pod.run("sh", "-c", "yes flood")
    quiet = pod.run("sleep", "1000")
    for _ in range(5):
        assert quiet.exec("echo", "x", timeout=5).stdout == b"x\n"
    flood.stop(0)
    flood.log_file.unlink()
    with pytest.raises(grpc.RpcError):
        node.client.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id="0" * 64), timeout=1)

"""Images for the nodes: load an archive, build one from a folder, and the example's image where no registry answers.

The work on images is the shim's (`python -m cri.images.load`, `python -m cri.images.build`); here it is asked for, on
every node.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from lab import debian_image
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.nodes import Node
from lab.progress import Say

LOAD_SECONDS = 600
REGISTRY_SECONDS = 3
PROGRESS_SECONDS = 1.0


def load(cluster: Cluster, archive: Path, nodes: Sequence[str] = ()) -> list[str]:
    """Import an OCI or docker archive into every node (or the named ones); the image names. Raises LabError."""
    if not archive.is_file():
        raise LabError(
            f"{archive} is no file", "give an archive made by `docker save`, `skopeo copy` or `cutaway image build`"
        )
    sockets = [cluster.node_paths(node).containerd_socket for node in chosen(cluster, nodes)]

    def load_one(containerd_socket: Path) -> list[str]:
        return _run("cri.images.load", "--socket", str(containerd_socket), str(archive)).split()

    with ThreadPoolExecutor(max_workers=4) as pool:
        names = list(pool.map(load_one, sockets))
    return names[0]


def chosen(cluster: Cluster, names: Sequence[str]) -> list[Node]:
    """The nodes of these names, all if there are none. Raises LabError."""
    if cluster.hollow:
        raise LabError("simulated nodes have no images", "`cutaway up` in another folder makes real ones")
    nodes = [node for node in cluster.nodes if not names or node.name in names]
    if not nodes:
        raise LabError("no such node", f"there are {', '.join(n.name for n in cluster.nodes) or 'none'}")
    return nodes


def build(directory: Path, name: str, output: Path, *, config: dict[str, object]) -> None:
    """Make an OCI archive out of a root file system and an image configuration. Raises LabError."""
    if not directory.is_dir():
        raise LabError(f"{directory} is no folder", "give the folder that shall become the image's root file system")
    _run("cri.images.build", "--name", name, "--output", str(output), "--config", json.dumps(config), str(directory))


def build_example(cluster: Cluster, name: str) -> Path:
    """The `nginx` image out of Debian's packages, as an archive in the cluster's folder; made once."""
    archive = cluster.home / "images" / f"{name.replace('/', '_').replace(':', '_')}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cutaway-image-") as folder:
            command = debian_image.make_nginx(Path(folder))
            config: dict[str, object] = {"Cmd": command, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}
            partial = archive.with_suffix(".partial")
            build(Path(folder), name, partial, config=config)
            partial.replace(archive)
    return archive


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, timeout=LOAD_SECONDS, cwd=PROJECT_ROOT,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{module} failed")
    return done.stdout


def names(cluster: Cluster, node: Node) -> list[str]:
    """The names of the images on a node. Raises LabError."""
    from cri_api.v1 import api_pb2, api_pb2_grpc

    with grpc.insecure_channel(f"unix://{cluster.node_paths(node).cri_socket}") as channel:
        try:
            listed = api_pb2_grpc.ImageServiceStub(channel).ListImages(api_pb2.ListImagesRequest(), timeout=10)
        except grpc.RpcError as error:
            raise LabError(f"{node.name}'s runtime does not answer", "`cutaway status` says how it is") from error
    return sorted(tag for image in listed.images for tag in image.repo_tags)


def is_present(cluster: Cluster, node: Node, image: str) -> bool:
    """Whether a node has the image."""
    from cri_api.v1 import api_pb2, api_pb2_grpc

    with grpc.insecure_channel(f"unix://{cluster.node_paths(node).cri_socket}") as channel:
        request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=image))
        answer = api_pb2_grpc.ImageServiceStub(channel).ImageStatus(request, timeout=10)
    return answer.HasField("image")


def registry_answers(image: str) -> bool:
    """Whether the image's registry can be reached from here: spares the wait for a pull that can't work."""
    first, slash, _ = image.partition("/")
    host = first if slash and ("." in first or ":" in first or first == "localhost") else "registry-1.docker.io"
    name, _, port = host.partition(":")
    try:
        with socket.create_connection((name, int(port or 443)), timeout=REGISTRY_SECONDS):
            return True
    except OSError:
        return False


def pull(cluster: Cluster, node: Node, image: str, say: Say) -> None:
    """Have a node pull an image, telling how far it is. Raises LabError with the registry's own words."""
    from cri_api.v1 import api_pb2, api_pb2_grpc

    log = cluster.home / "logs" / f"cri-{node.name}.log"
    seen_bytes = log.stat().st_size if log.exists() else 0
    with grpc.insecure_channel(f"unix://{cluster.node_paths(node).cri_socket}") as channel:
        request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=image))
        call = api_pb2_grpc.ImageServiceStub(channel).PullImage.future(request, timeout=LOAD_SECONDS)
        told = ""
        while True:
            try:
                call.result(timeout=PROGRESS_SECONDS)
                return
            except grpc.FutureTimeoutError:
                text = progress_text(image, _tail(log, seen_bytes))
                if text and text != told:
                    say(f"{node.name}: {text}")
                    told = text
            except grpc.RpcError as error:
                raise LabError(f"{node.name} can't pull {image}: {error.details()}") from error


def progress_text(image: str, log_lines: Iterable[str]) -> str:
    """The last word of a shim's log about a pull of this image, as a person reads it; empty if there is none."""
    text = ""
    for line in log_lines:
        if '"total_bytes"' not in line:
            continue
        entry = json.loads(line)
        if f"/{entry['image']}".endswith(f"/{image}"):
            text = f"pulling {image}: {entry['received_bytes'] / 1e6:.1f} of {entry['total_bytes'] / 1e6:.1f} MB"
    return text


def _tail(log: Path, after_bytes: int) -> list[str]:
    """The whole lines of a log after so many bytes."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(after_bytes)
        return file.read().decode(errors="replace").split("\n")[:-1]

"""Pulling: from Debian's docker-registry, and from a registry of the test's own that misbehaves on request."""

import asyncio
import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from cri_api.v1 import api_pb2 as cri

from cri.images import content
from cri.images.build import build
from tests.support.containerd import wait_until
from tests.support.images import busybox_root

REGISTRY_PORT, TOKEN_PORT, MIRROR_PORT = 21560, 21561, 21562


def blobs_of(archive: Path) -> dict[str, bytes]:
    """An OCI archive's blobs by digest."""
    with tarfile.open(archive) as tar:
        return {
            "sha256:" + member.name.rsplit("/", 1)[-1]: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.name.startswith("blobs/")
        }


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small image as {digest: bytes} with its manifest's digest."""
    directory = tmp_path_factory.mktemp("pull")
    root = busybox_root(directory)
    (root / "pulled").write_text("yes")
    build(root, "x/y:1", directory / "image.tar", {"Cmd": ["sleep", "1000"], "User": "alice"})
    blobs = blobs_of(directory / "image.tar")
    manifest = next(key for key, data in blobs.items() if data.startswith(b"{") and b'"layers":[' in data)
    return {"blobs": blobs, "manifest": manifest}


class Registry:
    """The distribution protocol's read side: tokens, an index, redirects, and faults on request."""

    def __init__(self, image: dict[str, Any], port: int) -> None:
        self.blobs: dict[str, bytes] = dict(image["blobs"])
        self.manifest = image["manifest"]
        self.port = port
        self.token_needed = False
        self.corrupt = ""
        self.requests: list[tuple[str, str]] = []
        self.active = self.active_max = 0
        self.delay = 0.0
        # While this is set and not yet given, blobs stop half way.
        self.half_way: threading.Event | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def index(self, architecture: str = "") -> str:
        """Adds an index with this machine's manifest and two others; returns its digest."""
        from cri import kernel

        platforms = [
            {"os": "windows", "architecture": "amd64"},
            {"os": "linux", "architecture": "s390x"},
            {"os": "linux", "architecture": architecture or kernel.machine()[0]},
        ]
        manifests = [
            {
                "mediaType": content.OCI_MANIFEST,
                "digest": self.manifest if number == 2 else f"sha256:{number:064d}",
                "size": len(self.blobs[self.manifest]),
                "platform": platform,
            }
            for number, platform in enumerate(platforms)
        ]
        data = json.dumps({"schemaVersion": 2, "mediaType": content.OCI_INDEX, "manifests": manifests}).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/token", self._token)
        app.router.add_get("/storage/{digest}", self._storage)
        app.router.add_get("/v2/{path:.*}", self._serve)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _token(self, request: web.Request) -> web.Response:
        expected = "Basic " + base64.b64encode(b"user:secret").decode()
        if request.headers.get("Authorization") != expected:
            return web.Response(status=401)
        assert request.query["service"] == "test"
        return web.json_response({"token": "good-token"})

    async def _serve(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, request.headers.get("Authorization", "")))
        if self.token_needed and request.headers.get("Authorization") != "Bearer good-token":
            challenge = (
                f'Bearer realm="http://127.0.0.1:{self.port}/token",service="test",scope="repository:team/app:pull"'
            )
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        _, kind, reference = request.match_info["path"].rsplit("/", 2)
        if kind == "blobs":
            # As content delivery networks do, on another origin.
            raise web.HTTPTemporaryRedirect(f"http://localhost:{self.port}/storage/{reference}")
        if reference == "indexed":
            reference = self.index()
        if reference == "foreign":
            reference = self.index("mips")
        digest = reference if reference.startswith("sha256:") else self.manifest
        if digest not in self.blobs or reference == "absent":
            return web.Response(status=404)
        data = self.blobs[digest]
        media_type = json.loads(data).get("mediaType", content.OCI_MANIFEST)
        return web.Response(body=data, headers={"Content-Type": media_type})

    async def _storage(self, request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers, "the token went to another origin"
        self.active += 1
        self.active_max = max(self.active_max, self.active)
        await asyncio.sleep(self.delay)
        self.active -= 1
        digest = request.match_info["digest"]
        data = self.blobs[digest]
        if digest == self.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        if self.half_way is not None and len(data) > 100_000:
            response = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            await asyncio.to_thread(self.half_way.wait, 30)
            await response.write(data[len(data) // 2 :])
            return response
        return web.Response(body=data)


@pytest.fixture
def registry(image: dict[str, Any]) -> Iterator[Registry]:
    registry = Registry(image, TOKEN_PORT)
    registry.start()
    yield registry
    registry.stop()


def pull(node, name: str, **auth: str) -> str:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=name))
    if auth:
        request.auth.CopyFrom(cri.AuthConfig(**auth))
    return node.client.images.PullImage(request, timeout=60).image_ref


def remove(node, name: str) -> None:
    node.client.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)))


def status(node, name: str) -> cri.Image:
    return node.client.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name))).image


@pytest.fixture
def docker_registry(tmp_path: Path, image: dict[str, Any]) -> Iterator[str]:
    if not shutil.which("docker-registry"):
        pytest.skip("needs docker-registry")
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }
    path = tmp_path / "config.yml"
    path.write_text(json.dumps(config))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(path)], stdout=log, stderr=log)
    base = f"http://127.0.0.1:{REGISTRY_PORT}/v2/"
    try:
        wait_until(lambda: _answers(base), what="docker-registry")
        for digest, data in image["blobs"].items():
            if digest != image["manifest"]:
                with urllib.request.urlopen(
                    urllib.request.Request(f"{base}team/app/blobs/uploads/", method="POST")
                ) as answer:
                    location = answer.headers["Location"]
                target = f"{location}&digest={digest}"
                headers = {"Content-Type": "application/octet-stream"}
                urllib.request.urlopen(urllib.request.Request(target, data=data, method="PUT", headers=headers)).close()
        headers = {"Content-Type": content.OCI_MANIFEST}
        data = image["blobs"][image["manifest"]]
        target = f"{base}team/app/manifests/1.0"
        urllib.request.urlopen(urllib.request.Request(target, data=data, method="PUT", headers=headers)).close()
        yield f"127.0.0.1:{REGISTRY_PORT}/team/app"
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
        return True
    except OSError:
        return False


def test_an_image_comes_from_a_real_registry_and_runs(node, docker_registry: str, image: dict[str, Any]) -> None:
    name = f"{docker_registry}:1.0"
    image_id = pull(node, name)
    found = status(node, name)
    assert found.id == image_id
    assert list(found.repo_tags) == [name]
    assert list(found.repo_digests) == [f"{docker_registry}@{image['manifest']}"]
    assert found.username == "alice"
    pod = node.client.run_pod()
    assert pod.shell("cat /pulled; id -un", image=name) == "yesalice\n"
    assert pull(node, f"{docker_registry}@{image['manifest']}") == image_id
    remove(node, image_id)
    assert not status(node, name).id
    with pytest.raises(grpc.RpcError) as caught:
        pull(node, f"{docker_registry}:2.0")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_credentials_become_a_token_that_stays_with_its_registry(node, registry: Registry) -> None:
    registry.token_needed = True
    name = f"127.0.0.1:{TOKEN_PORT}/team/app:1"
    good = {"username": "user", "password": "secret"}
    for auth in ({}, {**good, "password": "wrong"}, {**good, "server_address": "else.where"}):
        with pytest.raises(grpc.RpcError) as caught:
            pull(node, name, **auth)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "secret" not in caught.value.details()
    assert pull(node, name, username="user", password="secret")
    remove(node, name)
    encoded = base64.b64encode(b"user:secret").decode()
    assert pull(node, name, auth=encoded)
    remove(node, name)
    assert "secret" not in node.shim.log()


def test_this_machines_manifest_is_taken_from_an_index(node, registry: Registry) -> None:
    name = f"127.0.0.1:{TOKEN_PORT}/team/app"
    image_id = pull(node, f"{name}:indexed")
    (digest,) = status(node, image_id).repo_digests
    assert digest == f"{name}@{registry.index()}"
    remove(node, image_id)
    with pytest.raises(grpc.RpcError) as caught:
        pull(node, f"{name}:foreign")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "linux/s390x" in caught.value.details()


def test_a_blob_that_is_not_what_its_digest_says_is_refused(node, registry: Registry) -> None:
    registry.corrupt = max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))
    name = f"127.0.0.1:{TOKEN_PORT}/team/app:1"
    _forget_content(node)
    with pytest.raises(grpc.RpcError) as caught:
        pull(node, name)
    assert registry.corrupt in caught.value.details()
    assert not status(node, name).id
    registry.corrupt = ""
    assert pull(node, name)
    remove(node, name)


def _forget_content(node) -> None:
    """Pulls below must fetch: what removed images left is collected first."""
    socket = str(node.containerd.socket)
    listed = ["ctr", "-a", socket, "-n", "k8s.io", "content", "ls", "-q"]

    def gone() -> bool:
        digests = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        return len(digests) <= 3  # the busybox of all tests

    wait_until(gone, what="the collection of removed images")


def test_a_layer_that_is_no_archive_is_refused(node, registry: Registry) -> None:
    bomb = gzip.compress(b"not a tar at all" * 100)
    digest = f"sha256:{hashlib.sha256(bomb).hexdigest()}"
    manifest = json.loads(registry.blobs[registry.manifest])
    manifest["layers"][0] |= {"digest": digest, "size": len(bomb)}
    data = json.dumps(manifest).encode()
    registry.manifest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    registry.blobs |= {digest: bomb, registry.manifest: data}
    with pytest.raises(grpc.RpcError):
        pull(node, f"127.0.0.1:{TOKEN_PORT}/team/app:1")


@pytest.mark.parametrize(
    "document",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b"[" * 50_000,
        b'{"layers":[],"config":{}}',
        b'{"layers":7,"config":{"digest":"x"}}',
        b'{"manifests":[7]}',
        b'{"manifests":[{"platform":7}]}',
        b'{"manifests":7}',
    ],
)
def test_a_manifest_that_is_none_is_refused(node, registry: Registry, document: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
    registry.blobs[digest] = document
    with pytest.raises(grpc.RpcError) as caught:
        pull(node, f"127.0.0.1:{TOKEN_PORT}/team/app@{digest}")
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE)


def test_a_registry_that_is_not_there_is_unavailable(node) -> None:
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        pull(node, "127.0.0.1:21599/team/app:1")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 5


def test_pulls_of_one_image_at_once_are_one(node, registry: Registry) -> None:
    _forget_content(node)
    registry.delay = 0.3
    name = f"127.0.0.1:{TOKEN_PORT}/team/app:1"
    request = cri.PullImageRequest(image=cri.ImageSpec(image=name))
    answers = [node.client.images.PullImage.future(request) for _ in range(5)]
    assert len({answer.result(timeout=30).image_ref for answer in answers}) == 1
    assert len([path for path, _ in registry.requests if path.endswith("/manifests/1")]) == 1
    assert registry.active_max <= 3
    remove(node, name)


def test_a_pull_that_takes_long_tells_how_far_it_is(node, registry: Registry) -> None:
    _forget_content(node)
    registry.half_way = threading.Event()
    name = f"127.0.0.1:{TOKEN_PORT}/team/app:1"
    answer = node.client.images.PullImage.future(cri.PullImageRequest(image=cri.ImageSpec(image=name)))

    def half_way() -> dict[str, Any] | None:
        told = [json.loads(line) for line in node.shim.log().splitlines() if '"total_bytes"' in line]
        return next((entry for entry in told if 0 < entry["received_bytes"] < entry["total_bytes"]), None)

    wait_until(half_way)
    assert not answer.done()
    entry = half_way()
    assert entry is not None
    assert entry["image"] == name
    assert entry["total_bytes"] > sum(len(data) for data in registry.blobs.values()) / 2
    registry.half_way.set()
    assert answer.result(timeout=30).image_ref
    remove(node, name)

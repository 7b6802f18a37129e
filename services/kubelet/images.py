"""Images for containers.

Pull policy, pull secrets, back-off, and the words that statuses and events use. They go in `housekeeping.py`.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from services.kubelet import node_info, pod_spec
from services.kubelet.back_off import BackOff
from services.kubelet.credential_providers import CredentialProviders
from services.kubelet.objects import Objects
from services.kubelet.pod_plan import Waiting
from services.kubelet.runtime import Runtime, RuntimeFailure

_REFERENCE = re.compile(
    r"(?:(?=[^:/]{1,253}(?::\d+)?/)[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?\Z"
)
Event = Callable[[str, str, str], None]


class ImageProblem(Exception):
    """No image for the container, and why; `waiting` is what its status shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.waiting = Waiting(reason, message)


def pull_policy(container: pod_spec.AnyContainer) -> str:
    """The container's own policy, or the default by its tag: `Always` for latest."""
    if container.imagePullPolicy:
        return container.imagePullPolicy
    image = container.image or ""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def normalize(image: str) -> str:
    """The full name of a short one: `nginx` is `docker.io/library/nginx:latest`."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name + at + digest


def credentials(secrets: Iterable[core_v1.Secret], image: str) -> list[cri.AuthConfig]:
    """Every credential that the pull secrets hold for the image's registry, best match first."""
    full = normalize(image)
    found: list[tuple[int, cri.AuthConfig]] = []
    for secret in secrets:
        for address, entry in _auths(secret).items():
            prefix = re.sub(r"^https?://", "", address).removesuffix("/").removesuffix("/v1").removesuffix("/v2")
            prefix = "docker.io" if prefix in ("index.docker.io", "registry-1.docker.io") else prefix
            if full == prefix or full.startswith((prefix + "/", prefix + ":", prefix + "@")):
                found.append((len(prefix), _auth(entry)))
    return [auth for _, auth in sorted(found, key=lambda pair: -pair[0])]


def _auths(secret: core_v1.Secret) -> dict[str, dict[str, str]]:
    data = secret.data or {}
    try:
        if ".dockerconfigjson" in data:
            return json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths", {})
        if ".dockercfg" in data:
            return json.loads(base64.b64decode(data[".dockercfg"]))
    except (ValueError, AttributeError):
        return {}
    return {}


def _auth(entry: dict[str, str]) -> cri.AuthConfig:
    user, password = entry.get("username", ""), entry.get("password", "")
    if not user and entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode(errors="replace").partition(":")
    return cri.AuthConfig(username=user, password=password, identity_token=entry.get("identitytoken", ""))


@dataclass(frozen=True, slots=True)
class Present:
    """An image that is on this node."""

    ref: str
    uid: int | None
    user: str


async def images_path(runtime: Runtime, root: Path) -> str:
    """Where the runtime keeps images; `root` where it does not say, or where that is no place of ours."""
    found = (await runtime.image_fs()).image_filesystems
    path = found[0].fs_id.mountpoint if found else str(root)
    try:
        node_info.disk(path)
    except FileNotFoundError:  # the runtime's view of the machine need not be ours
        return str(root)
    return path


def _duration(seconds: float) -> str:
    """As Go writes a duration that is cut to milliseconds: `345ms`, `1.234s`, `1m2.5s`."""
    milliseconds = int(max(0.0, seconds) * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"


class Images:
    """Gets images onto the node."""

    def __init__(
        self,
        runtime: Runtime,
        objects: Objects,
        clock: Callable[[], float] = time.time,
        providers: CredentialProviders | None = None,
    ) -> None:
        self._runtime = runtime
        self._providers = providers
        self._objects = objects
        self._clock = clock
        # What the last pull of a pod's image failed of, while it is held back.
        self._failures: dict[str, str] = {}
        self._back_off = BackOff(10, 300)
        self.last_used: dict[str, float] = {}

    async def ensure(
        self,
        pod: core_v1.Pod,
        container: pod_spec.AnyContainer,
        event: Event,
        sandbox_config: cri.PodSandboxConfig | None = None,
    ) -> Present:
        """The container's image, pulled if its policy says so. Raises ImageProblem."""
        image = container.image or ""
        if not _REFERENCE.match(image):
            problem = f'couldn\'t parse image name "{image}": invalid reference format'
            message = f'Failed to apply default image tag "{image}": {problem}'
            event("Warning", "InspectFailed", message)
            raise ImageProblem("InvalidImageName", message)
        policy = pull_policy(container)
        try:
            present = await self._runtime.image(normalize(image))
        except RuntimeFailure as error:
            event("Warning", "InspectFailed", f'Failed to inspect image "{image}": {error.message}')
            raise ImageProblem("ImageInspectError", f'Failed to inspect image "{image}": {error.message}') from error
        if present is not None and policy != "Always":
            event("Normal", "Pulled", f'Container image "{image}" already present on machine')
            return self._present(present)
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            event("Warning", "ErrImageNeverPull", message)
            raise ImageProblem("ErrImageNeverPull", message)
        took = await self._pull(pod, image, event, sandbox_config)
        pulled = await self._runtime.image(normalize(image))
        if pulled is None:
            raise ImageProblem("ErrImagePull", f'image "{image}" was pulled but is not in the runtime')
        text = f'Successfully pulled image "{image}" in {took} ({took} including waiting). '
        event("Normal", "Pulled", f"{text}Image size: {pulled.size} bytes.")
        return self._present(pulled)

    def _present(self, image: cri.Image) -> Present:
        self.last_used[image.id] = self._clock()
        return Present(image.id, image.uid.value if image.HasField("uid") else None, image.username)

    async def _pull(
        self, pod: core_v1.Pod, image: str, event: Event, sandbox_config: cri.PodSandboxConfig | None
    ) -> str:
        """How long it took, as people read it."""
        key = f"{pod.metadata.uid}/{image}"
        if self._back_off.remaining_since_update(key, self._clock()) > 0:
            message = f'Back-off pulling image "{image}"'
            event("Normal", "BackOff", message)
            failed = self._failures.get(key)
            raise ImageProblem("ImagePullBackOff", f"{message}: {failed}" if failed else message)
        self._failures.pop(key, None)
        event("Normal", "Pulling", f'Pulling image "{image}"')
        began = self._clock()
        secrets = []
        for reference in pod.spec.imagePullSecrets or ():
            secret = await self._objects.secret(pod.metadata.namespace or "", reference.name or "")
            if secret is not None:
                secrets.append(secret)
        failure: RuntimeFailure | None = None
        own = credentials(secrets, image)
        others = await self._providers.credentials(pod, normalize(image)) if self._providers else []
        for auth in [*own, *others, None]:
            try:
                await self._runtime.pull_image(normalize(image), auth, sandbox_config)
            except RuntimeFailure as error:
                failure = failure or error
                continue
            return _duration(self._clock() - began)
        assert failure is not None
        self._back_off.next(key, self._clock())
        event("Warning", "Failed", f'Failed to pull image "{image}": {failure.message}')
        self._failures[key] = f"ErrImagePull: {failure.message}"
        raise ImageProblem("ErrImagePull", failure.message) from failure

    def retry_after_seconds(self, pod: core_v1.Pod, container: pod_spec.AnyContainer) -> float:
        """When the container's next pull may be tried."""
        return self._back_off.remaining_since_update(f"{pod.metadata.uid}/{container.image}", self._clock())

    def forget(self, uid: str) -> None:
        self._back_off.forget(f"{uid}/")
        for key in [key for key in self._failures if key.startswith(f"{uid}/")]:
            del self._failures[key]

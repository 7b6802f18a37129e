"""Credentials for image registries from programs on the node (KEP-2133): `credentialprovider.kubelet.k8s.io/v1`.

A program of the provider's directory gets a CredentialProviderRequest on its standard input and writes a
CredentialProviderResponse to its standard output. Clouds hand out registry passwords of hours this way. Where a
provider has `tokenAttributes`, it is given a token of the pod's own service account (KEP-4412).
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml
from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from machinery.component import logs

log = logs.get("kubelet")

_EXEC_SECONDS = 60.0
_OUTPUT_BYTES_MAX = 1 << 20
_CACHE_MAX = 1000
_API_VERSIONS = tuple(f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_CONFIG_VERSIONS = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|us|µs|ns|m|s))+|0")


class _Env(msgspec.Struct):
    name: str
    value: str


class TokenAttributes(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    service_account_token_audience: str
    require_service_account: bool
    cache_type: str = "ServiceAccount"
    required_service_account_annotation_keys: list[str] = []
    optional_service_account_annotation_keys: list[str] = []


class Provider(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One provider of a CredentialProviderConfig."""

    name: str
    match_images: list[str]
    default_cache_duration: str
    api_version: str
    args: list[str] | None = None
    env: list[_Env] | None = None
    token_attributes: TokenAttributes | None = None


class _Config(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    providers: list[Provider]


class _Credential(msgspec.Struct):
    username: str = ""
    password: str = ""


class _Response(msgspec.Struct, rename="camel"):
    kind: str
    api_version: str
    cache_key_type: str = ""
    cache_duration: str | None = None
    auth: dict[str, _Credential] | None = None


class ProviderFailed(Exception):
    """A provider gave no answer that can be used; the words say which and why."""


def duration_seconds(text: str) -> float:
    """Go's form of a duration (`1h30m`). Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 12h or 1h30m")
    return sum(float(n) * _UNIT_SECONDS[u] for n, u in re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)", text))


def parse_config(text: str, directory: str, where: str) -> list[Provider]:
    """The providers of a configuration file. Raises ValueError with file and field."""
    try:
        config = msgspec.convert(yaml.safe_load(text), _Config)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    if config.kind != "CredentialProviderConfig" or config.api_version not in _CONFIG_VERSIONS:
        raise ValueError(f"{where}: must be a CredentialProviderConfig of kubelet.config.k8s.io/v1")
    if not config.providers:
        raise ValueError(f"{where}: providers: at least one is needed")
    for index, provider in enumerate(config.providers):
        field = f"{where}: providers[{index}]"
        _check(provider, field, directory)
        if any(other.name == provider.name for other in config.providers[:index]):
            raise ValueError(f"{field}.name: {provider.name!r} is there twice")
    return config.providers


def _check(provider: Provider, field: str, directory: str) -> None:
    name = provider.name
    if not name or name in (".", "..") or "/" in name or " " in name:
        raise ValueError(f"{field}.name: {name!r} is not the name of a program")
    if not os.access(Path(directory) / name, os.X_OK):
        raise ValueError(f"{field}.name: {directory}/{name} is not a program")
    if not provider.match_images:
        raise ValueError(f"{field}.matchImages: at least one is needed")
    for pattern in provider.match_images:
        if not pattern or "://" in pattern:
            raise ValueError(f"{field}.matchImages: {pattern!r} is not a registry such as *.example.com/path")
    if provider.api_version not in _API_VERSIONS:
        raise ValueError(f"{field}.apiVersion: {provider.api_version!r} is not one of {', '.join(_API_VERSIONS)}")
    try:
        duration_seconds(provider.default_cache_duration)
    except ValueError as error:
        raise ValueError(f"{field}.defaultCacheDuration: {error}") from error
    attributes = provider.token_attributes
    if attributes is not None and not attributes.service_account_token_audience:
        raise ValueError(f"{field}.tokenAttributes.serviceAccountTokenAudience: is required")
    if attributes is not None and attributes.cache_type not in ("ServiceAccount", "Token"):
        raise ValueError(f"{field}.tokenAttributes.cacheType: {attributes.cache_type!r} is not ServiceAccount or Token")


def matches(pattern: str, image: str) -> bool:
    """Whether a pattern such as `*.dkr.example.com:5000/team` is for the image; a `*` never spans a dot."""
    host, port, path = _parts(pattern)
    image_host, image_port, image_path = _parts(image)
    wanted, labels = host.split("."), image_host.split(".")
    return (
        port == image_port
        and len(wanted) == len(labels)
        and all(fnmatch.fnmatchcase(label, part) for part, label in zip(wanted, labels, strict=True))
        and image_path.startswith(path)
    )


def _parts(text: str) -> tuple[str, str, str]:
    """(host, port, path) of a registry or an image."""
    location, slash, path = text.partition("/")
    host, _, port = location.partition(":")
    return host, port, slash + path


@dataclass(frozen=True, slots=True)
class Account:
    """Whose pod an image is pulled for."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    token: str


AccountOf = Callable[[core_v1.Pod, str], Awaitable[Account]]
"""The pod's service account with a token for an audience."""


class CredentialProviders:
    """Asks the programs, and keeps what they said as long as they allow."""

    def __init__(
        self,
        providers: Sequence[Provider],
        directory: str,
        account_of: AccountOf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._directory = directory
        self._account_of = account_of
        self._clock = clock
        # Until when, and the credentials by pattern.
        self._cache: dict[tuple[str, ...], tuple[float, dict[str, _Credential]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def credentials(self, pod: core_v1.Pod, image: str) -> list[cri.AuthConfig]:
        """What there is for a full image name, best match first. A provider that fails is logged and passed over."""
        found: list[tuple[str, _Credential]] = []
        for provider in self._providers:
            if not any(matches(pattern, image) for pattern in provider.match_images):
                continue
            try:
                found += (await self._of(provider, pod, image)).items()
            except ProviderFailed as error:
                log.warning("a credential provider failed", provider=provider.name, image=image, error=str(error))
        chosen = sorted((pair for pair in found if matches(pair[0], image)), key=lambda pair: pair[0], reverse=True)
        return [cri.AuthConfig(username=entry.username, password=entry.password) for _, entry in chosen]

    async def _of(self, provider: Provider, pod: core_v1.Pod, image: str) -> dict[str, _Credential]:
        # One question at a time: pods that start together ask once.
        async with self._locks.setdefault(provider.name, asyncio.Lock()):
            account = await self._account(provider, pod)
            whose = _whose(provider, account)
            for key in (("Image", image), ("Registry", image.partition("/")[0]), ("Global", "")):
                until, kept = self._cache.get((provider.name, *key, *whose), (0.0, {}))
                if until > self._clock():
                    return kept
            response = await self._ask(provider, image, account)
            auth = response.auth or {}
            seconds = duration_seconds(response.cache_duration or provider.default_cache_duration)
            if seconds > 0:
                where = {"Image": image, "Registry": image.partition("/")[0], "Global": ""}[response.cache_key_type]
                self._remember((provider.name, response.cache_key_type, where, *whose), self._clock() + seconds, auth)
            return auth

    def _remember(self, key: tuple[str, ...], until: float, auth: dict[str, _Credential]) -> None:
        now = self._clock()
        for old in [k for k, (end, _) in self._cache.items() if end <= now]:
            del self._cache[old]
        if len(self._cache) >= _CACHE_MAX:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = (until, auth)

    async def _account(self, provider: Provider, pod: core_v1.Pod) -> Account | None:
        wanted = provider.token_attributes
        if wanted is None:
            return None
        if not pod.spec.serviceAccountName:
            if wanted.require_service_account:
                raise ProviderFailed("the pod has no service account, and one is required")
            return None
        try:
            account = await self._account_of(pod, wanted.service_account_token_audience)
        except Exception as error:
            raise ProviderFailed(f"service account {pod.spec.serviceAccountName}: {error}") from error
        missing = [key for key in wanted.required_service_account_annotation_keys if key not in account.annotations]
        if missing:
            raise ProviderFailed(f"service account {account.name} lacks the annotation {missing[0]}")
        return account

    async def _ask(self, provider: Provider, image: str, account: Account | None) -> _Response:
        request: dict[str, object] = {
            "kind": "CredentialProviderRequest", "apiVersion": provider.api_version, "image": image,
        }  # fmt: skip
        if account is not None and provider.token_attributes is not None:
            wanted = provider.token_attributes
            keys = [*wanted.required_service_account_annotation_keys, *wanted.optional_service_account_annotation_keys]
            request["serviceAccountToken"] = account.token
            request["serviceAccountAnnotations"] = {k: v for k, v in account.annotations.items() if k in keys}
        output = await self._run(provider, msgspec.json.encode(request))
        try:
            response = msgspec.json.decode(output, type=_Response)
            if response.cache_duration is not None:
                duration_seconds(response.cache_duration)
        except (msgspec.DecodeError, ValueError) as error:
            raise ProviderFailed(f"its answer can't be read: {error}") from error
        if response.kind != "CredentialProviderResponse" or response.api_version != provider.api_version:
            raise ProviderFailed(f"answered with {response.api_version} {response.kind}, not {provider.api_version}")
        if response.cache_key_type not in ("Image", "Registry", "Global"):
            raise ProviderFailed(f"cacheKeyType: {response.cache_key_type!r} is not Image, Registry or Global")
        return response

    async def _run(self, provider: Provider, request: bytes) -> bytes:
        """The program's standard output. What it says on standard error is told, never the request: it has a token."""
        environment = {**os.environ, **{pair.name: pair.value for pair in provider.env or ()}}
        try:
            process = await asyncio.create_subprocess_exec(
                str(Path(self._directory) / provider.name), *(provider.args or ()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=environment,
            )  # fmt: skip
        except OSError as error:
            raise ProviderFailed(f"can't be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(_EXEC_SECONDS):
                output, said = await process.communicate(request)
        except TimeoutError as error:
            raise ProviderFailed(f"did not end within {_EXEC_SECONDS:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise ProviderFailed(f"ended with {process.returncode}: {said[-500:].decode(errors='replace').strip()}")
        if len(output) > _OUTPUT_BYTES_MAX:
            raise ProviderFailed(f"its answer has {len(output)} bytes, more than {_OUTPUT_BYTES_MAX}")
        return output


def _whose(provider: Provider, account: Account | None) -> tuple[str, ...]:
    """What a kept answer is good for besides the image: with a token, one account's pods (or one token) only."""
    if account is None or provider.token_attributes is None:
        return ()
    if provider.token_attributes.cache_type == "Token":
        return (account.token,)
    return (account.namespace, account.name, account.uid, str(sorted(account.annotations.items())))

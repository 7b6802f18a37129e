"""ServiceAccount: every pod runs as an account, whose token and CA are mounted into its containers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from machinery.api import errors
from services.apiserver.admission.chain import AsyncPlugin
from services.apiserver.registry.metadata import random_suffix
from services.apiserver.watch_cache import WatchCache
from services.apiserver.write_context import WriteContext

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
TOKEN_SECONDS = 3607
"""Upstream's: an hour and a bit, by which tokens that nobody asked for by duration are known."""
MIRROR = "kubernetes.io/config.mirror"
DEFAULT = "default"
DEFAULT_SECONDS_MAX = 1.5
"""How long a pod waits for its namespace's default account, which a controller makes after the namespace: upstream
looks ten times, 100 to 200 ms apart."""


class ServiceAccount(AsyncPlugin):
    """Fills in `serviceAccountName`, pull secrets and the projected volume with token, CA and namespace."""

    resources = frozenset(("pods",))
    operations = frozenset(("CREATE",))

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def mutate_async(self, ctx: WriteContext) -> bool:
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict):
            return False
        if MIRROR in (ctx.metadata.get("annotations") or {}):
            _check_mirror(ctx, spec)
            return False
        if _account_of(spec) == DEFAULT and not _has_default(ctx):
            # If it does not come, the pod is refused for want of it.
            with contextlib.suppress(TimeoutError):
                await self._wait_default(ctx)
        _fill_in(ctx, spec)
        return False

    async def _wait_default(self, ctx: WriteContext) -> None:
        async with asyncio.timeout(DEFAULT_SECONDS_MAX):
            while not _has_default(ctx):
                await self._cache.wait_revision(self._cache.revision + 1, timeout=None)


def _has_default(ctx: WriteContext) -> bool:
    return ctx.lookup.get("serviceaccounts", ctx.namespace, DEFAULT) is not None


def _account_of(spec: dict[str, Any]) -> Any:
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT


def _fill_in(ctx: WriteContext, spec: dict[str, Any]) -> None:
    name = _account_of(spec)
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = ctx.lookup.get("serviceaccounts", ctx.namespace, name)
    if account is None:
        why = f'error looking up service account {ctx.namespace}/{name}: serviceaccount "{name}" not found'
        raise errors.forbidden("", "pods", ctx.name, why)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]
    if _wants_token(spec, account):
        mount_token(spec)


def _wants_token(spec: dict[str, Any], account: dict[str, Any]) -> bool:
    wish = spec.get("automountServiceAccountToken")
    if wish is None:
        wish = account.get("automountServiceAccountToken")
    return wish is not False


def mount_token(spec: dict[str, Any]) -> None:
    """Mount the token where a container has nothing at its path yet."""
    volume_name = next(
        (
            volume["name"]
            for volume in spec.get("volumes") or ()
            if str(volume.get("name", "")).startswith(VOLUME_PREFIX)
        ),
        "",
    )
    is_new = not volume_name
    if is_new:
        volume_name = VOLUME_PREFIX + random_suffix()
    mounted = False
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            mounts = container.setdefault("volumeMounts", [])
            if all(mount.get("mountPath") != MOUNT_PATH for mount in mounts):
                mounts.append({"name": volume_name, "readOnly": True, "mountPath": MOUNT_PATH})
                mounted = True
    if mounted and is_new:
        spec.setdefault("volumes", []).append(_volume(volume_name))


def _volume(name: str) -> dict[str, Any]:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
            "defaultMode": 420,
        },
    }


def _check_mirror(ctx: WriteContext, spec: dict[str, Any]) -> None:
    """A mirror pod shows what a kubelet runs anyway; it may not reach for anything in the API."""
    why = ""
    if spec.get("serviceAccountName"):
        why = "a mirror pod may not reference service accounts"
    for volume in spec.get("volumes") or ():
        if "secret" in volume:
            why = "a mirror pod may not reference secrets"
        elif any("serviceAccountToken" in source for source in (volume.get("projected") or {}).get("sources") or ()):
            why = "a mirror pod may not use ServiceAccountToken volume projections"
    if why:
        raise errors.forbidden("", "pods", ctx.name, why)

"""What is served: /api, /apis and the documents below them, in the old form and the aggregated one that kubectl asks
for.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from services.apiserver.rest import negotiate, responses
from services.apiserver.rest.context import Call

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource, Subresource
    from services.apiserver.rest.served import ServedRegistry

GIT_VERSION = "v1.37.1"
VERSION = {
    "major": "1",
    "minor": "37",
    "emulationMajor": "1",
    "emulationMinor": "37",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "36",
    "gitVersion": f"{GIT_VERSION}+cutaway",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "cutaway",
    "compiler": "python",
    "platform": "linux/amd64",
}


class Discovery:
    """Builds the documents from the registry, and keeps them until custom resources come or go."""

    def __init__(self, registry: ServedRegistry) -> None:
        self._registry = registry
        self._documents: dict[tuple[str, str], tuple[bytes, str]] = {}
        registry.on_change(self._documents.clear)

    def answer(self, call: Call, *, whole: bool = False) -> web.Response | None:
        """The document at the call's path, or None if the path is not one of discovery's.

        `whole`: the document itself also for a client that has it, because more will be added to it.
        """
        parts = call.info.path.strip("/").split("/")
        aggregated = len(parts) == 1 and parts[0] in ("api", "apis")
        form = negotiate.choose(call.accept, negotiate.DISCOVERY_TRANSFORMS if aggregated else frozenset())
        key = ("/".join(parts), form.version if form.transform else "")
        found = self._documents.get(key)
        if found is None:
            document = self._document(parts, key[1])
            if document is None:
                return None
            body = responses.json_bytes(document)
            found = (body, '"' + hashlib.sha256(body).hexdigest().upper() + '"')
            self._documents[key] = found
        body, etag = found
        headers = {"Content-Type": form.content_type, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if form.transform and not whole:
            headers["ETag"] = etag
            if call.http.headers.get("If-None-Match", "") == etag:
                return web.Response(status=304, headers=headers)
        return web.Response(body=responses.represented(body, form.media_type), headers=headers)

    def _document(self, parts: list[str], aggregated: str) -> dict[str, Any] | None:
        registry = self._registry
        match parts:
            case ["api"] if aggregated:
                return self._aggregated([""], aggregated)
            case ["apis"] if aggregated:
                return self._aggregated([group for group in registry.groups() if group], aggregated)
            case ["api"]:
                return {
                    "kind": "APIVersions",
                    "versions": registry.versions(""),
                    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
                }
            case ["apis"]:
                groups = [self._group(group) for group in registry.groups() if group]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["api", version] if version in registry.versions(""):
                return self._resources("", version)
            case ["apis", group] if group and group in registry.groups():
                return {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
            case ["apis", group, version] if group and version in registry.versions(group):
                return self._resources(group, version)
        return None

    def _group(self, group: str) -> dict[str, Any]:
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version} for version in self._registry.versions(group)
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _resources(self, group: str, version: str) -> dict[str, Any]:
        resources: list[dict[str, Any]] = []
        for resource in self._registry.in_version(group, version):
            resources.append(_api_resource(resource))
            resources += [_api_subresource(resource, sub) for _, sub in sorted(resource.subresources.items())]
        group_version = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}

    def _aggregated(self, groups: list[str], version: str) -> dict[str, Any]:
        items = []
        for group in groups:
            versions = [
                {
                    "version": served,
                    "resources": [_discovery(resource) for resource in self._registry.in_version(group, served)],
                    "freshness": "Current",
                }
                for served in self._registry.versions(group)
            ]
            items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": versions})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }


def storage_version_hash(resource: Resource) -> str:
    """Eight characters that change when the stored version does: clients compare it, nothing else."""
    kind = resource.storage_kind
    digest = hashlib.sha256(f"{kind.group}/{kind.version}/{kind.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _api_resource(resource: Resource) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    if not resource.virtual:
        out["storageVersionHash"] = storage_version_hash(resource)
    return out


def _api_subresource(resource: Resource, subresource: Subresource) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": f"{resource.plural}/{subresource.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind.kind,
        "verbs": list(subresource.verbs),
    }
    if (subresource.kind.group, subresource.kind.version) != (resource.group, resource.version):
        out["group"] = subresource.kind.group
        out["version"] = subresource.kind.version
    return out


def _kind(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "version": version, "kind": kind}


def _discovery(resource: Resource) -> dict[str, Any]:
    out: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": _kind(resource.group, resource.version, resource.kind.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    if resource.subresources:
        out["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _kind(sub.kind.group, sub.kind.version, sub.kind.kind),
                "verbs": list(sub.verbs),
            }
            for _, sub in sorted(resource.subresources.items())
        ]
    return out


def unknown_path() -> errors.NotFound:
    """What every path that leads nowhere answers."""
    return errors.NotFound("the server could not find the requested resource")


def not_allowed() -> errors.MethodNotAllowed:
    """What a method answers that the path does not know."""
    return errors.MethodNotAllowed("the server does not allow this method on the requested resource")

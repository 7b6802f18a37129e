"""Aggregated APIs: a group that another server in the cluster answers, named by an APIService with a `service`.

Requests go to one of the Service's endpoints over TLS that the APIService's caBundle must vouch for; who asks
travels in X-Remote-* headers, which that server believes because our client certificate is the front proxy's.
Redirects are passed on, not followed (CVE-2022-3172).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from machinery.api import errors
from machinery.api.objects import now_rfc3339
from machinery.component import logs
from machinery.component.tls import TlsFiles
from services.apiserver.request import SYSTEM, Request, User, WriteOptions
from services.apiserver.rest import responses
from services.apiserver.rest.backends import RemoteDocuments, TlsContexts, Unavailable, candidates
from services.apiserver.rest.context import Call
from services.apiserver.rest.proxy import Backend, Proxy

if TYPE_CHECKING:
    from services.apiserver.handlers import Handlers
    from services.apiserver.kubelet_proxy import KubeletProxy

STORAGE = "apiservices.apiregistration.k8s.io"
CHECK_SECONDS = 10.0
RETRY_SECONDS = 1.0
"""How often a server that answers is asked, and one that is new or does not answer."""
DISCOVERY_SECONDS_MAX = 5.0
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
_CHECKER = User("system:kube-aggregator", groups=("system:masters",))

log = logs.get("aggregation")


class Aggregator:
    """Finds APIServices, forwards to them, asks what they serve, and says in their status whether they answer."""

    def __init__(self, handlers: Handlers, cluster: KubeletProxy, proxy: Proxy, identity: TlsFiles | None) -> None:
        self._handlers = handlers
        self._cluster = cluster
        self._proxy = proxy
        self._identity = identity
        self._contexts = TlsContexts(identity)
        # group/version -> its APIResourceList; None while it does not answer.
        self._served: dict[str, Mapping[str, Any] | None] = {}
        self.documents = RemoteDocuments()

    def find(self, group: str, version: str) -> Mapping[str, Any] | None:
        """The APIService that hands this group and version to another server."""
        found = self._cluster.objects(STORAGE, "", f"{version}.{group}")
        return found if found is not None and (found.get("spec") or {}).get("service") else None

    def _remote(self) -> list[Mapping[str, Any]]:
        return [found for found in self._cluster.list_objects(STORAGE, "") if (found.get("spec") or {}).get("service")]

    def any(self) -> bool:
        """Whether any group is another server's."""
        return bool(self._remote())

    # -- requests --

    async def serve(self, call: Call, api_service: Mapping[str, Any]) -> web.StreamResponse:
        """Forward one request. The caller has been authorized. Raises ServiceUnavailable.

        As upstream, nothing is forwarded to a server before it was seen to answer: who gets an answer finds its
        resources in discovery, too.
        """
        backend = self._backend(api_service)
        if self._served.get(_name(api_service)) is None:
            raise errors.ServiceUnavailable("service unavailable")
        url = _url(backend, call.http.raw_path)
        return await self._proxy.carry(call, backend, url, _identity_headers(call.user))

    def _backend(self, api_service: Mapping[str, Any]) -> Backend:
        spec = api_service["spec"]
        namespace, name = spec["service"].get("namespace", ""), spec["service"].get("name", "")
        service = self._cluster.objects("services", namespace, name)
        endpoints = self._cluster.objects("endpoints", namespace, name)
        found = candidates(spec["service"], service, endpoints)
        if isinstance(found, Unavailable):
            raise errors.ServiceUnavailable(found.message, causes=[errors.Cause(found.reason, found.message)])
        host, number = random.choice(found)  # noqa: S311  # spreading load, not keeping a secret
        self._proxy.refuse(host, number)
        return Backend("https", host, number, self._contexts.of(spec), f"{name}.{namespace}.svc")

    # -- discovery --

    def extended(self, response: web.Response, *, aggregated: bool) -> web.Response:
        """A discovery document at /apis with the other servers' groups in it."""
        remote = self._remote()
        if not remote or not isinstance(response.body, bytes):
            return response
        document = msgspec.json.decode(response.body)
        if aggregated:
            known = {item["metadata"]["name"] for item in document["items"]}
            document["items"] += [item for item in self._aggregated(remote) if item["metadata"]["name"] not in known]
        else:
            known = {group["name"] for group in document["groups"]}
            document["groups"] += [group for group in _groups(remote) if group["name"] not in known]
        body = responses.json_bytes(document)
        return responses.json_response(body, content_type=response.headers["Content-Type"])

    def group(self, name: str) -> web.Response | None:
        """The discovery document of one group that only other servers have."""
        found = _groups(found for found in self._remote() if found["spec"]["group"] == name)
        if not found:
            return None
        return responses.json_response(responses.json_bytes({"kind": "APIGroup", "apiVersion": "v1", **found[0]}))

    def _aggregated(self, remote: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for api_service in remote:
            group, version = api_service["spec"]["group"], api_service["spec"]["version"]
            served = self._served.get(f"{group}/{version}")
            resources = _resources(served or {}, group, version)
            freshness = "Current" if served is not None else "Stale"
            groups.setdefault(group, []).append({"version": version, "resources": resources, "freshness": freshness})
        return [{"metadata": {"name": group, "creationTimestamp": None}, "versions": v} for group, v in groups.items()]

    # -- whether they answer --

    async def run(self) -> None:
        """Ask every server again and again, and write down whether it answers."""
        clock = asyncio.get_running_loop().time
        # When each was asked last, by uid: who registers again is asked at once.
        asked: dict[str, float] = {}
        while True:
            remote = {str(found["metadata"].get("uid")): found for found in self._remote()}
            for uid, api_service in remote.items():
                name = _name(api_service)
                if self._served.get(name) is not None and clock() - asked.get(uid, -CHECK_SECONDS) < CHECK_SECONDS:
                    continue
                asked[uid] = clock()
                try:
                    await self.check(api_service)
                except errors.ApiError as error:
                    log.warning("an APIService's status could not be written", error=error.message)
            asked = {uid: at for uid, at in asked.items() if uid in remote}
            for name in set(self._served) - {_name(found) for found in remote.values()}:
                del self._served[name]
                self.documents.forget(name)
            await asyncio.sleep(RETRY_SECONDS)

    async def check(self, api_service: Mapping[str, Any]) -> None:
        """Ask one server what it serves."""
        name = _name(api_service)
        reason, message = "Passed", "all checks passed"
        try:
            backend = self._backend(api_service)
            self._served[name] = await self._fetch(backend, f"/apis/{name}")
            await self._read_documents(backend, name)
        except errors.ApiError as error:
            self._served[name] = None
            self.documents.forget(name)
            reason = error.causes[0].reason if error.causes else "FailedDiscoveryCheck"
            message = error.message
        await self._write_status(api_service, reason == "Passed", reason, message)

    async def _read_documents(self, backend: Backend, name: str) -> None:
        """Learn what the server says of its schemas. One that does not is none the worse."""
        try:
            index = await self._fetch(backend, "/openapi/v3")
            url = str(((index.get("paths") or {}).get(f"apis/{name}") or {}).get("serverRelativeURL", ""))
        except errors.ServiceUnavailable:
            url = ""
        if self.documents.knows(name, url):
            return
        try:
            whole = await self._fetch(backend, "/openapi/v2")
        except errors.ServiceUnavailable:
            whole = {}
        self.documents.learn(name, url, whole)

    async def _fetch(self, backend: Backend, path: str) -> Mapping[str, Any]:
        timeout = aiohttp.ClientTimeout(total=DISCOVERY_SECONDS_MAX)
        try:
            async with self._proxy.client().get(
                _url(backend, path),
                headers=[*_identity_headers(_CHECKER), ("Accept", "application/json")],
                ssl=backend.context or True,
                server_hostname=backend.server_hostname,
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                if answer.status != 200:
                    raise errors.ServiceUnavailable(f"{path} answers {answer.status}")
                document = msgspec.json.decode(await _whole(answer))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise errors.ServiceUnavailable(f"failing or missing response from {path}: {error}") from error
        if not isinstance(document, dict):
            raise errors.ServiceUnavailable(f"{path} answers no mapping")
        return document

    async def _write_status(self, api_service: Mapping[str, Any], ok: bool, reason: str, message: str) -> None:
        conditions = list((api_service.get("status") or {}).get("conditions") or [])
        old: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Available"), {})
        status = "True" if ok else "False"
        if (old.get("status"), old.get("reason"), old.get("message")) == (status, reason, message):
            return
        changed = old.get("lastTransitionTime") if old.get("status") == status else now_rfc3339()
        condition = {
            "type": "Available",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": changed,
        }
        resource = self._handlers.registry.resolve("apiregistration.k8s.io", "v1", "apiservices")
        request = Request(SYSTEM, "patch", resource, "status", "", api_service["metadata"]["name"], "kube-aggregator")
        others = [c for c in conditions if c.get("type") != "Available"]
        patch = {"status": {"conditions": [condition, *others]}}
        await self._handlers.patch(request, "merge", patch, WriteOptions(field_manager="kube-aggregator"))


def _name(api_service: Mapping[str, Any]) -> str:
    return f"{api_service['spec']['group']}/{api_service['spec']['version']}"


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The answer's body, or as much of it as we are ready to read."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > DOCUMENT_BYTES_MAX:
            raise errors.ServiceUnavailable(f"{answer.url.path} answers more than {DOCUMENT_BYTES_MAX} bytes")
    return bytes(body)


def _url(backend: Backend, target: str) -> URL:
    base = URL.build(scheme=backend.scheme, host=backend.host, port=backend.port)
    url = base.join(URL("/" + target.lstrip("/"), encoded=True))
    if url.host != base.host or url.port != base.port:
        raise errors.BadRequest("the path leads to another host")
    return url


def _identity_headers(user: User) -> list[tuple[str, str]]:
    headers = [("X-Remote-User", user.name)]
    if user.uid:
        headers.append(("X-Remote-Uid", user.uid))
    headers += [("X-Remote-Group", group) for group in user.groups]
    headers += [(f"X-Remote-Extra-{key.replace('/', '%2F')}", v) for key, values in user.extra.items() for v in values]
    return headers


def _groups(remote: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for api_service in remote:
        group, version = api_service["spec"]["group"], api_service["spec"]["version"]
        groups.setdefault(group, []).append({"groupVersion": f"{group}/{version}", "version": version})
    return [{"name": name, "versions": found, "preferredVersion": found[0]} for name, found in groups.items()]


def _resources(served: Mapping[str, Any], group: str, version: str) -> list[dict[str, Any]]:
    """An APIResourceList's entries in the form of aggregated discovery."""
    out: dict[str, dict[str, Any]] = {}
    for raw in served.get("resources") or ():
        name, _, subresource = raw["name"].partition("/")
        kind = {"group": raw.get("group") or group, "version": raw.get("version") or version, "kind": raw["kind"]}
        if subresource:
            if name in out:
                entry = {"subresource": subresource, "responseKind": kind, "verbs": raw.get("verbs") or []}
                out[name].setdefault("subresources", []).append(entry)
            continue
        out[name] = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if raw.get("namespaced") else "Cluster",
            "singularResource": raw.get("singularName") or "",
            "verbs": raw.get("verbs") or [],
            **{key: raw[key] for key in ("shortNames", "categories") if raw.get(key)},
        }
    return list(out.values())

"""What a URL asks for: upstream's RequestInfo.

    /api/v1/namespaces/default/pods/web/log      core, v1, namespace default, resource pods, name web, subresource log
    /apis/apps/v1/deployments?watch=1            apps, v1, all namespaces, resource deployments, verb watch
    /api/v1/watch/pods                           the old way to say watch
    /healthz                                     no resource: a path

Parsing never fails: what is no resource path is a path, and whether it leads anywhere is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from machinery.api import errors

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Namespaces are a resource and a scope; below them these are subresources, everything else is a resource.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
PARAMETERS_MAX = 1000
_FALSE = frozenset({"0", "false"})


@dataclass(slots=True)
class RequestInfo:
    """A parsed request line. `verb` is the API's for resources, the lower-case method for paths."""

    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    # Everything after the subresource, for proxies: "/metrics/cadvisor".
    rest: str = ""
    # /apis/<g>/<v>/proxy/… and watch/…: the deprecated prefixes.
    prefix_verb: str = ""


Query = Mapping[str, Sequence[str]]
_NO_QUERY: dict[str, list[str]] = {}


def split_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """The raw path and the decoded query of a request target. Raises BadRequest for too many parameters."""
    path, mark, query = target.partition("?")
    if not mark:
        return path, _NO_QUERY
    out: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
    except ValueError as error:
        raise errors.BadRequest(f"the query can't be read: {error}") from error
    for key, value in pairs:
        out.setdefault(key, []).append(value)
    return path, out


def is_true(query: Query, key: str) -> bool:
    """Whether a boolean parameter is set: `watch`, `watch=1`, `watch=true`."""
    values = query.get(key)
    return values is not None and values[0].lower() not in _FALSE


def parse(method: str, path: str, query: Query) -> RequestInfo:
    """What `method path?query` asks for. `path` is still percent-encoded, so that an encoded slash splits nothing."""
    parts = path.strip("/").split("/")
    prefix = parts[0]
    if len(parts) < 3 or prefix not in ("api", "apis") or (prefix == "apis" and len(parts) < 4):
        return RequestInfo(path, method.lower())
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if prefix == "api":
        info = RequestInfo(path, _VERBS.get(method, ""), True, "", parts[1])
        current = parts[2:]
    else:
        info = RequestInfo(path, _VERBS.get(method, ""), True, parts[1], parts[2])
        current = parts[3:]
    if current[0] in ("watch", "proxy") and len(current) > 1:
        info.prefix_verb = info.verb = current[0]
        current = current[1:]
    if current[0] == "namespaces" and len(current) > 1:
        info.namespace = current[1]
        if len(current) > 2 and current[2] not in _NAMESPACE_SUBRESOURCES:
            current = current[2:]
    info.resource = current[0]
    if len(current) > 1:
        info.name = current[1]
    if len(current) > 2 and info.prefix_verb != "proxy":
        info.subresource = current[2]
        if len(current) > 3:
            info.rest = "/" + "/".join(current[3:])
    _refine(info, query)
    return info


def _refine(info: RequestInfo, query: Query) -> None:
    """A GET without a name is a list or a watch, a DELETE without one is for the collection."""
    if info.prefix_verb == "watch" and not info.name:
        info.name = _selected_name(query)
    if not info.name:
        if info.verb == "get":
            info.verb = "watch" if query and is_true(query, "watch") else "list"
            if query:
                # A selector that leaves one object is judged as that object's name, so that rules with
                # resourceNames can grant list and watch.
                info.name = _selected_name(query)
        elif info.verb == "delete":
            info.verb = "deletecollection"
            info.name = _selected_name(query)


def _selected_name(query: Query) -> str:
    for selector in query.get("fieldSelector", ()):
        for term in selector.split(","):
            key, sign, value = term.partition("=")
            if sign and key == "metadata.name":
                return value.removeprefix("=")
    return ""

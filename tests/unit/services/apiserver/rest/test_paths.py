"""Paths mean what upstream's RequestInfo says they mean."""

from __future__ import annotations

import pytest

from machinery.api import errors
from services.apiserver.rest.paths import RequestInfo, parse, split_target


def info(method: str, target: str) -> RequestInfo:
    path, query = split_target(target)
    return parse(method, path, query)


@pytest.mark.parametrize(
    ("method", "target", "verb", "group", "namespace", "resource", "subresource", "name"),
    [
        ("GET", "/api/v1/namespaces", "list", "", "", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/other", "get", "", "other", "namespaces", "", "other"),
        ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "other", "namespaces", "finalize", "other"),
        ("PUT", "/api/v1/namespaces/other/status", "update", "", "other", "namespaces", "status", "other"),
        ("GET", "/api/v1/namespaces/other/pods", "list", "", "other", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "other", "pods", "", "foo"),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "other", "pods", "", "foo"),
        ("GET", "/api/v1/namespaces/other/pods/foo/log", "get", "", "other", "pods", "log", "foo"),
        ("GET", "/api/v1/pods", "list", "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=true", "watch", "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=1", "watch", "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch", "watch", "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=false", "list", "", "", "pods", "", ""),
        ("GET", "/api/v1/watch/pods", "watch", "", "", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch", "", "other", "pods", "", "foo"),
        ("GET", "/api/v1/namespaces/o/pods?fieldSelector=metadata.name%3Dx", "list", "", "o", "pods", "", "x"),
        ("POST", "/api/v1/namespaces/other/pods", "create", "", "other", "pods", "", ""),
        ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "other", "pods", "", ""),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "other", "pods", "", "foo"),
        ("PATCH", "/apis/apps/v1/namespaces/o/deployments/d", "patch", "apps", "o", "deployments", "", "d"),
        ("GET", "/apis/apps/v1/deployments", "list", "apps", "", "deployments", "", ""),
        ("GET", "/apis/a.b/v1/namespaces/o/things/a%2Fb", "get", "a.b", "o", "things", "", "a/b"),
    ],
)
def test_resources(
    method: str, target: str, verb: str, group: str, namespace: str, resource: str, subresource: str, name: str
) -> None:
    got = info(method, target)
    assert got.is_resource
    assert (got.verb, got.group, got.namespace) == (verb, group, namespace)
    assert (got.resource, got.subresource, got.name) == (resource, subresource, name)


@pytest.mark.parametrize(
    "target",
    ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/livez/ping", "/openapi/v3"],
)
def test_paths_that_are_no_resource(target: str) -> None:
    got = info("GET", target)
    assert not got.is_resource
    assert got.verb == "get"


def test_what_follows_a_proxy() -> None:
    got = info("GET", "/api/v1/namespaces/o/pods/web/proxy/a/b?x=1")
    assert (got.subresource, got.rest) == ("proxy", "/a/b")


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(errors.BadRequest, match="query"):
        split_target("/api/v1/pods?" + "&".join(f"a{n}=1" for n in range(2000)))

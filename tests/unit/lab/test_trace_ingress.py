"""Which route a request takes, as the API orders them."""

import pytest

from lab import trace_ingress
from protos.cutaway.v1 import ingress_pb2


def route(host, path, path_type="Prefix", **more):
    return ingress_pb2.Route(host=host, path=path, path_type=path_type, namespace="d", ingress="i", **more)


ROUTES = [
    route("a.test", "/", service="root"),
    route("a.test", "/foo", service="foo"),
    route("a.test", "/foo/bar", "Exact", service="bar"),
    route("*.test", "/foo", service="wild"),
    route("", "/any", service="any"),
    route("", "/", "Default", service="default"),
]


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        ("a.test", "/foo/bar", "bar"),
        ("A.test", "/foo/bar/", "foo"),
        ("a.test", "/foobar", "root"),
        ("b.test", "/foo", "wild"),
        ("x.b.test", "/foo", "default"),
        ("b.test", "/any/more", "any"),
        ("b.test", "/", "default"),
    ],
)
def test_the_host_comes_before_its_wildcard_and_the_longest_path_first(host, path, service):
    assert trace_ingress.choose(ROUTES, host, path).service == service


def test_without_a_default_there_may_be_none():
    assert trace_ingress.choose(ROUTES[:-1], "c.example", "/") is None


def test_a_route_says_why_it_is_not_served():
    assert trace_ingress.describe(route("", "/", error="there is no Service d/x")) == (
        "any host, / (Prefix), by Ingress d/i: not served: there is no Service d/x"
    )
    assert trace_ingress.has_regex([route("a.test", "/x(/|$)(.*)")], "a.test")
    assert not trace_ingress.has_regex(ROUTES, "a.test")

"""What `cutaway trace` asks and says."""

import pytest

from lab import trace
from lab.errors import LabError
from protos.cutaway.v1 import kube_proxy_pb2


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("web", "web", 80), ("web.shop:8080", "web.shop", 8080), ("10.96.0.10:53", "10.96.0.10", 53)],
)
def test_an_address_has_a_port_or_gets_one(text, host, port):
    assert trace.parse(text) == trace.Target(host, port)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("http://www.example.test", trace.Target("www.example.test", 80, "/")),
        ("https://www.example.test/a/b?c=d", trace.Target("www.example.test", 443, "/a/b")),
        ("http://10.0.0.1:8080/x", trace.Target("10.0.0.1", 8080, "/x")),
    ],
)
def test_a_url_has_a_path_too(text, target):
    assert trace.parse(text) == target


@pytest.mark.parametrize("text", ["", ":80", "web:x", "web:0", "web:70000", "ftp://web/", "http:///x"])
def test_what_is_no_address_is_refused_with_what_would_be_one(text):
    with pytest.raises(LabError, match="such as"):
        trace.parse(text)


def test_names_are_tried_as_a_pod_tries_them():
    assert trace.candidates("web", "shop") == [
        "web.shop.svc.cluster.local", "web.svc.cluster.local", "web.cluster.local", "web",
    ]  # fmt: skip
    assert trace.candidates("a.b.", "shop") == ["a.b"]


def test_a_verdict_names_the_policies():
    verdict = kube_proxy_pb2.PolicyVerdict(direction="ingress", allowed=False, policies=["d/closed"])
    assert trace.sentence(verdict, "n1") == "ingress on n1: dropped; d/closed isolate the pod and none allows it"
    verdict = kube_proxy_pb2.PolicyVerdict(direction="egress", allowed=True, allowed_by="d/open")
    assert trace.sentence(verdict, "n1") == "egress on n1: allowed by d/open"

"""Image references as people write them."""

import pytest
from cri_api.v1 import api_pb2 as cri

from cri.config import Registry, RegistryAuth
from cri.errors import InvalidArgument
from cri.images.reference import parse
from cri.images.registry import credentials, endpoints, is_loopback

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1"),
        ("127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
    ],
)
def test_a_reference_has_one_full_name(text: str, name: str) -> None:
    assert parse(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Upper",
        "a b",
        "-x",
        "x:",
        "x:tag:tag",
        "x@sha256:1",
        "x@md5:1",
        "/x",
        "x/",
        "a//b",
        "../x",
        "x" * 300,
        "x:" + "t" * 200,
        "ho_st:1/../x",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_mirrors_come_first_and_loopback_is_plain() -> None:
    assert endpoints("docker.io", None) == ["https://registry-1.docker.io"]
    assert endpoints("127.0.0.1:5000", None) == ["http://127.0.0.1:5000"]
    settings = Registry(mirrors=["http://mirror:1/"])
    assert endpoints("docker.io", settings) == ["http://mirror:1", "https://registry-1.docker.io"]
    assert [
        is_loopback(host) for host in ("localhost:1", "127.9.9.9", "[::1]:5", "127.0.0.1.evil.example", "10.0.0.1")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_credentials_are_for_the_host_that_they_name() -> None:
    given = cri.AuthConfig(username="u", password="p", server_address="https://index.docker.io/v1/")
    assert credentials("docker.io", given, None).username == "u"
    assert credentials("other.example", given, None).username == ""
    configured = RegistryAuth(auth="dTpw")
    assert credentials("other.example", given, configured).password == "p"
    with pytest.raises(InvalidArgument):
        credentials("x", None, RegistryAuth(auth="%%%"))
    assert "p" not in repr(credentials("docker.io", given, None)).replace("password", "").replace("Cred", "")[-40:]

"""Image references as people write them and as they are stored: pure.

`nginx` is `docker.io/library/nginx:latest`; a first part with a dot, a colon, or `localhost` is a registry's host
(the distribution project's reference grammar).
"""

import re

import msgspec

from cri.errors import InvalidArgument

_DEFAULT_HOST = "docker.io"
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_LENGTH_MAX = 255


class Reference(msgspec.Struct, frozen=True):
    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """As containerd keeps it: by tag, or by digest where one is given."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse(text: str) -> Reference:
    """Raises InvalidArgument with what is wrong."""
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"image {text!r}: {digest!r} is not a digest")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, path = head, tail
    else:
        host, path = _DEFAULT_HOST, rest
    tag = ""
    if ":" in path.rsplit("/", 1)[-1]:
        path, _, tag = path.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"image {text!r}: {tag!r} is not a tag")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = _DEFAULT_HOST
    if host == _DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or len(path) > _LENGTH_MAX:
        raise InvalidArgument(
            f"image {text!r}: invalid reference format: names are lower case letters, digits and ._-/"
        )
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))

"""In which form an answer goes: what the Accept header allows, best first.

client-go asks for protobuf before JSON and takes either: the answer is JSON. Only a client that takes nothing but
protobuf gets that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from machinery.api import errors

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
_MEDIA_TYPES = {
    "application/json": JSON,
    "application/*": JSON,
    "*/*": JSON,
    "application/yaml": YAML,
    "application/x-yaml": YAML,
    "text/yaml": YAML,
}
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"
DISCOVERY = "APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Representation:
    """How to answer: the media type, and which kind the objects are turned into ("": as they are)."""

    media_type: str = JSON
    transform: str = ""
    version: str = ""
    group: str = ""

    @property
    def content_type(self) -> str:
        """The Content-Type of an answer in this form."""
        if self.transform == DISCOVERY:
            return f"{JSON};g={self.group};v={self.version};as={self.transform}"
        return self.media_type


PLAIN = Representation()
_META = "meta.k8s.io"


@lru_cache(maxsize=512)
def candidates(accept: str) -> tuple[Representation, ...]:
    """The forms that `accept` allows and we have, in the client's order; of equal quality the earlier one is better."""
    if not accept.strip():
        return (PLAIN,)
    found: list[tuple[float, int, Representation]] = []
    for position, clause in enumerate(accept.split(",")):
        media, *parameters = (part.strip() for part in clause.split(";"))
        values = dict(item.split("=", 1) for item in parameters if "=" in item)
        media_type = _MEDIA_TYPES.get(media.lower())
        try:
            quality = float(values.get("q", 1))
        except ValueError:
            quality = 0.0
        if media_type is None or quality <= 0:
            continue
        transform = values.get("as", "")
        form = Representation(media_type, transform, values.get("v", ""), values.get("g", "")) if transform else None
        found.append((-quality, position, form or Representation(media_type)))
    return tuple(form for _, _, form in sorted(found, key=lambda item: item[:2]))


def _fits(form: Representation, transforms: frozenset[str]) -> bool:
    if not form.transform:
        return True
    if form.transform not in transforms:
        return False
    if form.transform == DISCOVERY:
        return form.group == "apidiscovery.k8s.io" and form.version in ("v2", "v2beta1")
    return form.group == _META and form.version in ("v1", "v1beta1")


_NONE: frozenset[str] = frozenset()
OBJECT_TRANSFORMS = frozenset({TABLE, PARTIAL})
LIST_TRANSFORMS = frozenset({TABLE, PARTIAL_LIST})
WATCH_TRANSFORMS = frozenset({TABLE, PARTIAL})
DISCOVERY_TRANSFORMS = frozenset({DISCOVERY})


_PROTOBUF = Representation(PROTOBUF)


def choose(
    accept: str, transforms: frozenset[str] = _NONE, *, protobuf: bool = True, stream: bool = False
) -> Representation:
    """The best form for this request; `protobuf`: whether that is one, if nothing else is taken; `stream`: whether it
    is a watch. Raises NotAcceptable.
    """
    if not accept or accept in (JSON, "*/*"):
        return PLAIN
    for form in candidates(accept):
        if _fits(form, transforms):
            return form
    if protobuf and any(_is_plain_protobuf(clause, stream) for clause in accept.split(",")):
        return _PROTOBUF
    raise errors.NotAcceptable(f"only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}")


def _is_plain_protobuf(clause: str, stream: bool) -> bool:
    media, *parameters = (part.strip() for part in clause.split(";"))
    if stream and "stream=watch" in parameters:
        parameters.remove("stream=watch")
    return media == PROTOBUF and not any(part.startswith(("as=", "stream=", "q=0")) for part in parameters)

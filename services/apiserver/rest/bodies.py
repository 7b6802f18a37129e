"""Request bodies: JSON and YAML into plain objects, with the limits that keep a hostile one cheap.

orjson refuses nesting beyond 1,024 levels and text that is not UTF-8. YAML aliases are counted as often as they
would be expanded, so that a small document can't become a large object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import orjson
import yaml

from machinery.api import errors
from services.apiserver import go_text
from services.apiserver.rest import protobuf
from services.apiserver.schema.structure import json_type

BODY_BYTES_MAX = 3 * 1024 * 1024
# A YAML document may, with its aliases expanded, have as many nodes as a body of the largest size could spell out.
YAML_NODES_MAX = 200_000
YAML_DEPTH_MAX = 1_000
DUPLICATES_MAX = 100
"""How many duplicate fields are told of; upstream's number. Each becomes a warning in the answer's head."""

_JSON_TYPES = frozenset({"application/json", "application/json-patch+json", "application/merge-patch+json"})
_YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


def media_type(content_type: str) -> str:
    """The bare media type of a Content-Type header."""
    return content_type.partition(";")[0].strip().lower()


def decode_object(body: bytes, content_type: str, wanted: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The object in a body, which should be of the kind `wanted`, and the paths of fields that it has twice. Raises
    BadRequest, UnsupportedMediaType."""
    try:
        return _decoded_object(body, content_type)
    except Undecodable as error:
        summary = _summary(body)
        why = f"the object provided is unrecognized (must be of type {wanted}): {error.message} ({summary})"
        raise errors.BadRequest(why) from error


def decode_options(body: bytes, content_type: str) -> dict[str, Any]:
    """The options in the body of a delete. Raises BadRequest, UnsupportedMediaType."""
    return _decoded_object(body, content_type)[0]


def _decoded_object(body: bytes, content_type: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    document, duplicates = _decoded(body, content_type)
    if not isinstance(document, dict):
        raise Undecodable(f"{_NO_KIND}json: cannot unmarshal {json_type(document)} into Go value of type {_HEAD}")
    for name in ("apiVersion", "kind"):
        value = document.get(name)
        if not isinstance(value, str | None):
            why = f"json: cannot unmarshal {json_type(value)} into Go struct field .{name} of type string"
            raise Undecodable(_NO_KIND + why)
    return document, duplicates


_NO_KIND = "couldn't get version/kind; json parse error: "
_HEAD = r"""struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"""
_SUMMARY_BYTES = 30


class Undecodable(errors.BadRequest):
    """A body that is no document; the message is the decoder's."""


def _summary(body: bytes) -> str:
    """A body's beginning: as it is if it is a JSON object's, else in hexadecimal."""
    if not body:
        return "<empty>"
    begin = body[:_SUMMARY_BYTES]
    text = begin.decode(errors="replace") if body[:1] == b"{" else begin.hex()
    return text if len(body) <= _SUMMARY_BYTES else f"{text} ..."


def _decoded(body: bytes, content_type: str) -> tuple[Any, tuple[str, ...]]:
    kind = media_type(content_type)
    if kind in _YAML_TYPES:
        document, duplicates = _decode_yaml(body)
    elif not kind or kind == "application/json":
        document = decode_json(body)
        duplicates = duplicate_fields(body, document)
    elif kind == protobuf.MEDIA_TYPE:
        document = protobuf.decode(body)
        duplicates = ()
    else:
        known = ", ".join(("application/json", "application/yaml", protobuf.MEDIA_TYPE))
        raise _unknown_format(known)
    return document, duplicates


def _unknown_format(known: str) -> errors.UnsupportedMediaType:
    return errors.UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {known}"
    )


def decode_patch(body: bytes, content_type: str) -> tuple[str, Any, tuple[str, ...]]:
    """The patch type, the decoded patch, and the fields that it has twice: by their paths, in an apply patch by their
    lines as YAML's decoder words it. Raises UnsupportedMediaType, BadRequest.
    """
    kind = media_type(content_type)
    patch_type = PATCH_TYPES.get(kind)
    if patch_type is None:
        raise _unknown_format(", ".join(PATCH_TYPES))
    try:
        document, duplicates = _decoded_patch(body, patch_type)
    except Undecodable as error:
        raise errors.BadRequest(_PATCH_ERROR[patch_type] + error.message.removeprefix(_NO_KIND)) from error
    return patch_type, document, duplicates


_PATCH_ERROR = {
    "json": "error decoding patch: ",
    "merge": "error decoding patch: ",
    "strategic": "",
    "apply": "error decoding YAML: ",
}


def _decoded_patch(body: bytes, patch_type: str) -> tuple[Any, tuple[str, ...]]:
    if patch_type == "apply":
        document, duplicates = _decode_applied(body)
    else:
        document = decode_json(body)
        duplicates = duplicate_fields(body, document) if patch_type != "json" else ()
    if not isinstance(document, list if patch_type == "json" else dict):
        into = "[]handlers.jsonPatchOp" if patch_type == "json" else "map[string]interface {}"
        raise Undecodable(f"json: cannot unmarshal {json_type(document)} into Go value of type {into}")
    return document, duplicates


def _decode_applied(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """What applies is YAML, of which JSON is a part: it may have a comma too many, and lines are counted in it. JSON's
    decoder is only the faster one."""
    if body.lstrip()[:1] == b"{":
        with suppress(Undecodable):
            document = decode_json(body)
            if not duplicate_fields(body, document):
                return document, ()
    return _decode_yaml(body, _line)


def decode_json(body: bytes) -> Any:
    """A JSON document. Raises Undecodable that says where it breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # What Go takes and this decoder does not, says the decoder: text that is not UTF-8, too many levels.
        raise Undecodable(_NO_KIND + (go_text.json_error(body) or str(error))) from error


def duplicate_fields(body: bytes, document: Any) -> tuple[str, ...]:
    """The paths of keys that stand twice in one mapping (the decoder kept the last).

    Most bodies have none: a text with as many keys as the decoded document can't. Only another number is looked into.
    """
    if body.count(b'":') == orjson.dumps(document).count(b'":'):
        return ()
    duplicates: list[str] = []
    room = DUPLICATES_MAX

    def pairs(items: list[tuple[str, Any]]) -> _Mapping:
        seen: set[str] = set()
        mapping = _Mapping(items)
        nonlocal room
        for key, _ in items:
            if key in seen and room:
                mapping.twice.append(key)
                room -= 1
            seen.add(key)
        return mapping

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Mapping):
            duplicates.extend(f"{path}.{key}" if path else key for key in value.twice)
            for key, below in value.items():
                walk(below, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for index, below in enumerate(value):
                walk(below, f"{path}[{index}]")

    try:
        walk(json.loads(body, object_pairs_hook=pairs), "")
    except (ValueError, RecursionError):
        # orjson took it, so it is JSON; what the slower decoder dislikes (depth) is no duplicate.
        return ()
    return tuple(duplicates)


class _Mapping(dict[str, Any]):
    """A decoded mapping that remembers which of its keys came twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        super().__init__(items)
        self.twice: list[str] = []


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: no dates, no base-60 numbers, no tags that make other types."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _construct_int(loader: Any, node: yaml.ScalarNode) -> Any:
    text = loader.construct_scalar(node)
    # "1:30" is ninety in YAML 1.1 and a string everywhere in Kubernetes.
    return text if ":" in text else yaml.SafeLoader.construct_yaml_int(loader, node)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def decode_yaml(body: bytes) -> Any:
    """A YAML document. Raises BadRequest that names the line."""
    return _decode_yaml(body)[0]


class _Twice(NamedTuple):
    """A key that its mapping has already."""

    key: str
    path: str
    line: int


def _path(twice: _Twice) -> str:
    return twice.path


def _line(twice: _Twice) -> str:
    return f'line {twice.line}: key "{twice.key}" already set in map'


def _decode_yaml(body: bytes, told: Callable[[_Twice], str] = _path) -> tuple[Any, tuple[str, ...]]:
    """A YAML document, and what is told of the keys that stand twice in one mapping."""
    try:
        _refuse_depth(body)
        loader = _Loader(body)
        try:
            node = loader.get_single_node()
            if node is None:
                raise Undecodable(f"{_NO_KIND}unexpected end of JSON input")
            _refuse_bombs(node)
            duplicates = tuple(map(told, islice(_duplicate_keys(node, ""), DUPLICATES_MAX)))
            document = loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Undecodable(f"yaml: {_one_line(error)}") from error
    try:
        orjson.dumps(document)
    except TypeError as error:
        raise Undecodable(f"yaml: {error}") from error
    return document, duplicates


def _duplicate_keys(node: yaml.Node, path: str) -> Iterator[_Twice]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            # A merge key may stand several times; keys that are no scalars are refused elsewhere.
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                yield _Twice(key.value, below, value.start_mark.line + 1)
            seen.add(str(key.value))
            yield from _duplicate_keys(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicate_keys(item, f"{path}[{index}]")


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', error)}"
    return " ".join(str(error).split())


def _refuse_depth(body: bytes) -> None:
    """Raise BadRequest if the document nests too deeply or has too many nodes. Events come one by one, whereas the
    composer in C recurses: a hundred thousand brackets would end the process."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(body, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > YAML_DEPTH_MAX:
            raise Undecodable("yaml: exceeded max depth of 1000")
        if nodes > 2 * YAML_NODES_MAX:
            raise Undecodable("yaml: document has too many nodes")


def _refuse_bombs(root: yaml.Node) -> None:
    """Raise BadRequest if the document is too deep, too large with its aliases expanded, or contains itself."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        key = id(node)
        if key in sizes:
            return sizes[key]
        if key in above:
            raise Undecodable("yaml: an anchor contains itself")
        if depth > YAML_DEPTH_MAX:
            raise Undecodable("yaml: exceeded max depth of 1000")
        above.add(key)
        total = 1
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                total += size(item, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                total += size(name, depth + 1) + size(value, depth + 1)
        above.discard(key)
        if total > YAML_NODES_MAX:
            raise Undecodable("yaml: document contains excessive aliasing")
        sizes[key] = total
        return total

    size(root, 0)

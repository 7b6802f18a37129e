"""API objects as bytes, as models and as dicts, and the questions that every component asks of their metadata.

Models are the msgspec Structs of `lightkube.models`: decoding is typed, unknown fields are dropped, and encoding
leaves out what is None while it keeps empty maps and lists (`emptyDir: {}` means something). A component that changes
an object it decoded into a model therefore sends a patch, so that fields which the model does not know survive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from machinery.api.kinds import Kind


class OwnerReference(msgspec.Struct, omit_defaults=True):
    """metadata.ownerReferences[*]."""

    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    blockOwnerDeletion: bool = False


class PartialMetadata(msgspec.Struct, omit_defaults=True):
    """The parts of metadata that generic code needs."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    ownerReferences: list[OwnerReference] | None = None
    creationTimestamp: datetime | None = None
    deletionTimestamp: datetime | None = None
    deletionGracePeriodSeconds: int | None = None


class PartialObject(msgspec.Struct, omit_defaults=True):
    """An object of which only identity and metadata were decoded: what garbage collection and the like need."""

    apiVersion: str = ""
    kind: str = ""
    metadata: PartialMetadata = msgspec.field(default_factory=PartialMetadata)


_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="deterministic")
_dict_decoder = msgspec.json.Decoder(dict[str, Any])


_decoders: dict[type[Any], Callable[[bytes], Any]] = {}


def decoder_of(model: type[Any]) -> Callable[[bytes], Any]:
    """The decode function for a model class. Building one takes milliseconds, so each class gets exactly one."""
    found = _decoders.get(model)
    if found is None:
        found = _decoders[model] = msgspec.json.Decoder(model).decode
    return found


def decode_dict(raw: bytes) -> dict[str, Any]:
    """The object as a plain dict. Raises msgspec.DecodeError."""
    return _dict_decoder.decode(raw)


def decoder_for(kind: Kind) -> Callable[[bytes], Any]:
    """The decode function for a kind: to its model, or to a dict for a custom kind."""
    model = kind.model
    return decode_dict if model is None else decoder_of(model)


def decode(kind: Kind, raw: bytes) -> Any:
    """Decode one object. Raises msgspec.DecodeError or its subclass msgspec.ValidationError."""
    return decoder_for(kind)(raw)


def decode_partial(raw: bytes) -> PartialObject:
    """Only identity and metadata; the rest is skipped without being built."""
    partial: PartialObject = decoder_of(PartialObject)(raw)
    return partial


def encode(obj: Any) -> bytes:
    """A model, dict or list as JSON. Bytes are taken to be JSON already. What is None in a model is left out."""
    return bytes(obj) if isinstance(obj, (bytes, bytearray, memoryview)) else _encoder.encode(obj)


def to_dict(obj: Any) -> dict[str, Any]:
    """A model (or dict, or JSON bytes) as a plain dict of JSON types."""
    return decode_dict(encode(obj))


def from_dict(kind: Kind, obj: Mapping[str, Any]) -> Any:
    """A plain dict as the kind's model. Raises msgspec.ValidationError."""
    return decode(kind, _encoder.encode(obj))


def canonical_json(obj: Mapping[str, Any]) -> bytes:
    """The one JSON form of an object: keys sorted, no spaces, UTF-8."""
    return _canonical_encoder.encode(obj)


# --- keys -------------------------------------------------------------------------------------------------------------


def key_of(namespace: str | None, name: str) -> str:
    """ "namespace/name", or "name" for a cluster-scoped object: what work queues and listers speak."""
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name); the namespace is empty for a cluster-scoped object."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def metadata_of(obj: Any) -> Any:
    """The metadata of a model or dict, in the object's own form."""
    return obj["metadata"] if isinstance(obj, dict) else obj.metadata


def object_key(obj: Any) -> str:
    """`key_of` for a model or dict."""
    if isinstance(obj, dict):
        metadata = obj["metadata"]
        return key_of(metadata.get("namespace"), metadata["name"])
    return key_of(obj.metadata.namespace, obj.metadata.name)


def labels_of(obj: Any) -> Mapping[str, str]:
    """metadata.labels, empty if there are none."""
    metadata = metadata_of(obj)
    labels = metadata.get("labels") if isinstance(metadata, dict) else metadata.labels
    return labels or {}


def revision_of(obj: Any) -> int:
    """metadata.resourceVersion as a number; 0 if it is not set.

    Only this project's apiservers promise that it is one.
    """
    metadata = metadata_of(obj)
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else metadata.resourceVersion
    return int(version) if version else 0


# --- ownership --------------------------------------------------------------------------------------------------------


def owner_reference(obj: Any, *, controller: bool = True) -> Any:
    """A reference to `obj` for a dependent's metadata.ownerReferences, as a meta_v1.OwnerReference."""
    from lightkube.models import meta_v1

    if isinstance(obj, dict):
        api_version, kind, name, uid = obj["apiVersion"], obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"]
    else:
        api_version, kind, name, uid = obj.apiVersion, obj.kind, obj.metadata.name, obj.metadata.uid
    blocks = True if controller else None
    return meta_v1.OwnerReference(
        apiVersion=api_version, kind=kind, name=name, uid=uid, controller=controller or None, blockOwnerDeletion=blocks
    )


def controller_of(obj: Any) -> Any:
    """The owner reference whose `controller` is true (an OwnerReference; for a dict object, a dict), or None."""
    metadata = metadata_of(obj)
    if isinstance(metadata, dict):
        return next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    return next((ref for ref in metadata.ownerReferences or () if ref.controller), None)


# --- time -------------------------------------------------------------------------------------------------------------


def now() -> datetime:
    """The present, in whole seconds as metav1.Time has it."""
    return datetime.now(UTC).replace(microsecond=0)


def now_micro() -> datetime:
    """The present in microseconds, as metav1.MicroTime (Leases, Events) has it."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in whole seconds: `2026-01-02T03:04:05Z` (metav1.Time)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """RFC 3339 with six digits: `2026-01-02T03:04:05.000000Z` (metav1.MicroTime)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def now_rfc3339() -> str:
    """The present as metav1.Time."""
    return format_time(now())


def now_rfc3339_micro() -> str:
    """The present as metav1.MicroTime."""
    return format_micro_time(now_micro())


def parse_time(text: str | datetime) -> datetime:
    """RFC 3339 in either precision, with any offset, to UTC. A datetime passes through. Raises ValueError."""
    if isinstance(text, datetime):
        return text if text.tzinfo else text.replace(tzinfo=UTC)
    try:
        return msgspec.convert(text, datetime).astimezone(UTC)
    except (msgspec.ValidationError, TypeError) as err:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-01-02T03:04:05Z") from err

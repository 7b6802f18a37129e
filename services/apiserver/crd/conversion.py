"""Versions of a custom resource that a webhook converts into each other: `apiextensions.k8s.io` ConversionReview.

    stored bytes ──served_all──> the version that a client asks for        (get, list, watch, the answer to a write)
    written object ──stored────> the storage version                        (the last step before a commit)

What upstream's apiextensions-apiserver (pkg/apiserver/conversion) promises holds here: one review converts many
objects, only those that are not of the wanted version yet; of metadata a webhook may change labels and annotations,
nothing else; what it returns is pruned and defaulted by the wanted version's schema. A webhook that fails makes the
request fail with 500.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.admission.webhook_client import WebhookClient, WebhookFailed
from services.apiserver.registry.metadata import new_uid
from services.apiserver.schema.custom import CustomSchema

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource

Obj = dict[str, Any]

TIMEOUT_SECONDS = 30.0
"""As upstream: conversions are on every path, but have no timeout of their own in the definition."""
REVIEW_OBJECTS_MAX = 500
REVIEW_BYTES_MAX = 1024 * 1024
"""How much goes into one review: its answer must fit into what is read of one."""
CACHE_BYTES_MAX = 16 * 1024 * 1024
"""Converted objects are kept, so that many watchers of one version cost one review an event."""
_REVIEW_VERSIONS = ("v1", "v1beta1")


class WebhookConversion:
    """The conversion of one definition, as it was when its rows were made."""

    def __init__(self, client: WebhookClient, definition: Mapping[str, Any]) -> None:
        spec = definition["spec"]
        webhook = spec["conversion"]["webhook"]
        self._client = client
        self._config: Mapping[str, Any] = webhook["clientConfig"]
        known = webhook.get("conversionReviewVersions") or ()
        self._review_version = next((version for version in known if version in _REVIEW_VERSIONS), "v1")
        kind = spec["names"]["kind"]
        self._judges = {
            version["name"]: CustomSchema(
                (version.get("schema") or {}).get("openAPIV3Schema"), kind=kind, version=version["name"]
            )
            for version in spec["versions"]
        }
        # Objects that were stored before the schema changed get the defaults of the present one when they are read.
        self._changed = definition["metadata"].get("generation", 1) > 1
        self._cache = _ConvertedCache(CACHE_BYTES_MAX)

    async def served_all(self, resource: Resource, values: Sequence[bytes]) -> list[bytes]:
        """Stored bytes as the version that `resource` serves, in the same order. Raises InternalError."""
        wanted = resource.kind.api_version
        out = list(values)
        due: list[int] = []
        for index, value in enumerate(values):
            if codec.is_version(value, wanted):
                out[index] = self._defaulted(resource, value)
                continue
            known = self._cache.get(wanted, value)
            if known is None:
                due.append(index)
            else:
                out[index] = known
        for part in _parts(due, values):
            converted = await self.convert([codec.decode(values[index]) for index in part], wanted)
            for index, obj in zip(part, converted, strict=True):
                out[index] = codec.encode(obj)
                self._cache.put(wanted, values[index], out[index])
        return out

    def defaults_on_read(self, version: str) -> bool:
        """Whether objects that are stored as this version are not to be served as they are."""
        return self._changed and self._judges[version].has_defaults

    def _defaulted(self, resource: Resource, value: bytes) -> bytes:
        if not self.defaults_on_read(resource.version):
            return value
        obj = codec.decode(value)
        self._judges[resource.version].default(obj)
        return codec.encode(obj)

    async def stored(self, resource: Resource, obj: Obj) -> Obj:
        """An object of any version as one of the storage version. Raises InternalError."""
        return (await self.convert([obj], resource.storage_kind.api_version))[0]

    async def convert(self, objects: list[Obj], api_version: str) -> list[Obj]:
        """Objects as another version, in order. Those that are of it already are returned as they are."""
        due = [obj for obj in objects if obj["apiVersion"] != api_version]
        if not due:
            return objects
        uid = new_uid()
        request = {"uid": uid, "desiredAPIVersion": api_version, "objects": due}
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{self._review_version}",
            "request": request,
        }
        try:
            answer = await self._client.post(self._config, review, TIMEOUT_SECONDS)
            converted = converted_objects(answer, review, due)
        except (WebhookFailed, BadConversion) as err:
            version, kind = due[0]["apiVersion"], due[0]["kind"]
            raise errors.InternalError(f"conversion webhook for {version}, Kind={kind} failed: {err}") from err
        judge = self._judges[api_version.rpartition("/")[2]]
        for obj in converted:
            judge.take_in(obj, "Ignore")
            judge.default(obj)
        fresh = iter(converted)
        return [obj if obj["apiVersion"] == api_version else next(fresh) for obj in objects]


class BadConversion(Exception):
    """An answer that is no conversion of what was asked; the message says why."""


def converted_objects(answer: Any, review: Mapping[str, Any], originals: Sequence[Obj]) -> list[Obj]:
    """The objects of a ConversionReview's response, with the originals' metadata but for labels and annotations. Raises
    BadConversion.
    """
    if not isinstance(answer, dict):
        raise BadConversion("the answer is no ConversionReview")
    version, uid = review["apiVersion"], review["request"]["uid"]
    response = answer.get("response")
    if version.endswith("/v1"):
        got = (answer.get("apiVersion"), answer.get("kind"))
        if got != (version, "ConversionReview"):
            raise BadConversion(
                f"expected webhook response of {version}, Kind=ConversionReview, got {got[0]}, Kind={got[1]}"
            )
    if not isinstance(response, dict):
        raise BadConversion("no response provided")
    if version.endswith("/v1") and response.get("uid") != uid:
        raise BadConversion(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        message = result.get("message")
        raise BadConversion(message or f"response.result.status was '{result.get('status', '')}', not 'Success'")
    objects = response.get("convertedObjects") or []
    if len(objects) != len(originals):
        raise BadConversion(f"returned {len(objects)} objects, expected {len(originals)}")
    wanted = review["request"]["desiredAPIVersion"]
    return [
        _restored(original, converted, wanted, index)
        for index, (original, converted) in enumerate(zip(originals, objects, strict=True))
    ]


def _restored(original: Obj, converted: Any, wanted: str, index: int) -> Obj:
    """A converted object with the metadata that a webhook may not touch. Raises BadConversion."""
    where = f"returned invalid converted object at index {index}"
    if not isinstance(converted, dict):
        raise BadConversion(f"{where}: it is no object")
    if converted.get("apiVersion") != wanted:
        got = converted.get("apiVersion")
        raise BadConversion(f"{where}: invalid groupVersion (expected {wanted}, received {got})")
    if converted.get("kind") != original["kind"]:
        raise BadConversion(f"{where}: invalid kind (expected {original['kind']}, received {converted.get('kind')})")
    metadata, own = converted.get("metadata"), original["metadata"]
    if not isinstance(metadata, dict):
        raise BadConversion(f"{where}: metadata is missing or no object")
    for field, name in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if (metadata.get(field) or "") != (own.get(field) or ""):
            raise BadConversion(f"{where}: must have the same {name}: {own.get(field)} != {metadata.get(field)}")
    kept = {key: value for key, value in own.items() if key not in ("labels", "annotations")}
    for field in ("labels", "annotations"):
        value = metadata.get(field)
        if not value:
            continue
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise BadConversion(f"{where}: metadata.{field} must map strings to strings")
        kept[field] = value
    converted["metadata"] = kept
    return converted


def _parts(indices: Sequence[int], values: Sequence[bytes]) -> Iterator[list[int]]:
    """The indices in order, in groups that fit into one review."""
    part: list[int] = []
    size = 0
    for index in indices:
        if part and (len(part) >= REVIEW_OBJECTS_MAX or size + len(values[index]) > REVIEW_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(index)
        size += len(values[index])
    if part:
        yield part


class _ConvertedCache:
    """Converted bytes by (version, stored bytes); the least recently used go first. Stored bytes hold their revision,
    so nothing here gets stale.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._size = 0
        self._known: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def get(self, version: str, value: bytes) -> bytes | None:
        found = self._known.get((version, value))
        if found is not None:
            self._known.move_to_end((version, value))
        return found

    def put(self, version: str, value: bytes, converted: bytes) -> None:
        if (version, value) in self._known:
            return
        self._known[version, value] = converted
        self._size += len(value) + len(converted)
        while self._size > self._bytes_max:
            (_, old), gone = self._known.popitem(last=False)
            self._size -= len(old) + len(gone)

from protos.cutaway.v1 import object_pb2 as _object_pb2
from protos.cutaway.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "subresource", "at_revision")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    AT_REVISION_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    subresource: str
    at_revision: int
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., subresource: _Optional[str] = ..., at_revision: _Optional[int] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "limit", "at_revision")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AT_REVISION_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    limit: int
    at_revision: int
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., limit: _Optional[int] = ..., at_revision: _Optional[int] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("object", "kind", "user", "time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Version.Kind]
        CREATED: _ClassVar[Version.Kind]
        CHANGED: _ClassVar[Version.Kind]
        DELETED: _ClassVar[Version.Kind]
    KIND_UNSPECIFIED: Version.Kind
    CREATED: Version.Kind
    CHANGED: Version.Kind
    DELETED: Version.Kind
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    object: _object_pb2.Object
    kind: Version.Kind
    user: str
    time: float
    def __init__(self, object: _Optional[_Union[_object_pb2.Object, _Mapping]] = ..., kind: _Optional[_Union[Version.Kind, str]] = ..., user: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("after_revision",)
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    def __init__(self, after_revision: _Optional[int] = ...) -> None: ...

class Write(_message.Message):
    __slots__ = ("resource", "version")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    version: Version
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class FollowBatch(_message.Message):
    __slots__ = ("writes", "revision")
    WRITES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    writes: _containers.RepeatedCompositeFieldContainer[Write]
    revision: int
    def __init__(self, writes: _Optional[_Iterable[_Union[Write, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class CompactResponse(_message.Message):
    __slots__ = ("revision", "removed")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    removed: int
    def __init__(self, revision: _Optional[int] = ..., removed: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("resource", "namespace", "label_selector", "field_selector", "at_revision")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    AT_REVISION_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    label_selector: str
    field_selector: str
    at_revision: int
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., label_selector: _Optional[str] = ..., field_selector: _Optional[str] = ..., at_revision: _Optional[int] = ...) -> None: ...

class ListChunk(_message.Message):
    __slots__ = ("revision", "items")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    items: _containers.RepeatedCompositeFieldContainer[_object_pb2.Object]
    def __init__(self, revision: _Optional[int] = ..., items: _Optional[_Iterable[_Union[_object_pb2.Object, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("resource", "namespace", "label_selector", "field_selector", "after_revision")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    label_selector: str
    field_selector: str
    after_revision: int
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., label_selector: _Optional[str] = ..., field_selector: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchBatch(_message.Message):
    __slots__ = ("events", "revision", "initial_events_end")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INITIAL_EVENTS_END_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[WatchEvent]
    revision: int
    initial_events_end: bool
    def __init__(self, events: _Optional[_Iterable[_Union[WatchEvent, _Mapping]]] = ..., revision: _Optional[int] = ..., initial_events_end: _Optional[bool] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("type", "object")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[WatchEvent.Type]
        ADDED: _ClassVar[WatchEvent.Type]
        MODIFIED: _ClassVar[WatchEvent.Type]
        DELETED: _ClassVar[WatchEvent.Type]
    TYPE_UNSPECIFIED: WatchEvent.Type
    ADDED: WatchEvent.Type
    MODIFIED: WatchEvent.Type
    DELETED: WatchEvent.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    type: WatchEvent.Type
    object: _object_pb2.Object
    def __init__(self, type: _Optional[_Union[WatchEvent.Type, str]] = ..., object: _Optional[_Union[_object_pb2.Object, _Mapping]] = ...) -> None: ...

class WriteOptions(_message.Message):
    __slots__ = ("dry_run", "field_manager", "field_validation", "force", "fence")
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FIELD_MANAGER_FIELD_NUMBER: _ClassVar[int]
    FIELD_VALIDATION_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    field_manager: str
    field_validation: str
    force: bool
    fence: _object_pb2.Fence
    def __init__(self, dry_run: _Optional[bool] = ..., field_manager: _Optional[str] = ..., field_validation: _Optional[str] = ..., force: _Optional[bool] = ..., fence: _Optional[_Union[_object_pb2.Fence, _Mapping]] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "subresource", "json", "options")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    subresource: str
    json: bytes
    options: WriteOptions
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., subresource: _Optional[str] = ..., json: _Optional[bytes] = ..., options: _Optional[_Union[WriteOptions, _Mapping]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "subresource", "json", "options")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    subresource: str
    json: bytes
    options: WriteOptions
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., subresource: _Optional[str] = ..., json: _Optional[bytes] = ..., options: _Optional[_Union[WriteOptions, _Mapping]] = ...) -> None: ...

class PatchRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "subresource", "type", "patch", "options")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[PatchRequest.Type]
        JSON: _ClassVar[PatchRequest.Type]
        MERGE: _ClassVar[PatchRequest.Type]
        STRATEGIC: _ClassVar[PatchRequest.Type]
        APPLY: _ClassVar[PatchRequest.Type]
    TYPE_UNSPECIFIED: PatchRequest.Type
    JSON: PatchRequest.Type
    MERGE: PatchRequest.Type
    STRATEGIC: PatchRequest.Type
    APPLY: PatchRequest.Type
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    subresource: str
    type: PatchRequest.Type
    patch: bytes
    options: WriteOptions
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., subresource: _Optional[str] = ..., type: _Optional[_Union[PatchRequest.Type, str]] = ..., patch: _Optional[bytes] = ..., options: _Optional[_Union[WriteOptions, _Mapping]] = ...) -> None: ...

class Preconditions(_message.Message):
    __slots__ = ("uid", "revision")
    UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    revision: int
    def __init__(self, uid: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class DeleteOptions(_message.Message):
    __slots__ = ("grace_period_seconds", "propagation_policy", "preconditions", "dry_run", "fence")
    GRACE_PERIOD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_POLICY_FIELD_NUMBER: _ClassVar[int]
    PRECONDITIONS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    grace_period_seconds: int
    propagation_policy: str
    preconditions: Preconditions
    dry_run: bool
    fence: _object_pb2.Fence
    def __init__(self, grace_period_seconds: _Optional[int] = ..., propagation_policy: _Optional[str] = ..., preconditions: _Optional[_Union[Preconditions, _Mapping]] = ..., dry_run: _Optional[bool] = ..., fence: _Optional[_Union[_object_pb2.Fence, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("resource", "namespace", "name", "options")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    name: str
    options: DeleteOptions
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., options: _Optional[_Union[DeleteOptions, _Mapping]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("object", "gone")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    object: _object_pb2.Object
    gone: bool
    def __init__(self, object: _Optional[_Union[_object_pb2.Object, _Mapping]] = ..., gone: _Optional[bool] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("resource", "namespace", "label_selector", "field_selector", "options")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    namespace: str
    label_selector: str
    field_selector: str
    options: DeleteOptions
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., namespace: _Optional[str] = ..., label_selector: _Optional[str] = ..., field_selector: _Optional[str] = ..., options: _Optional[_Union[DeleteOptions, _Mapping]] = ...) -> None: ...

class DeleteCollectionResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: _containers.RepeatedCompositeFieldContainer[DeleteResponse]
    def __init__(self, deleted: _Optional[_Iterable[_Union[DeleteResponse, _Mapping]]] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("create", "update", "patch", "delete")
    CREATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    create: CreateRequest
    update: UpdateRequest
    patch: PatchRequest
    delete: DeleteRequest
    def __init__(self, create: _Optional[_Union[CreateRequest, _Mapping]] = ..., update: _Optional[_Union[UpdateRequest, _Mapping]] = ..., patch: _Optional[_Union[PatchRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteRequest, _Mapping]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("mutations", "omit_objects")
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    OMIT_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    mutations: _containers.RepeatedCompositeFieldContainer[Mutation]
    omit_objects: bool
    def __init__(self, mutations: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ..., omit_objects: _Optional[bool] = ...) -> None: ...

class MutationResult(_message.Message):
    __slots__ = ("object", "error")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    object: _object_pb2.Object
    error: _object_pb2.Status
    def __init__(self, object: _Optional[_Union[_object_pb2.Object, _Mapping]] = ..., error: _Optional[_Union[_object_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[MutationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[MutationResult, _Mapping]]] = ...) -> None: ...

class DiscoverRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServedResource(_message.Message):
    __slots__ = ("resource", "kind", "namespaced", "verbs", "short_names", "categories", "subresources", "singular")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACED_FIELD_NUMBER: _ClassVar[int]
    VERBS_FIELD_NUMBER: _ClassVar[int]
    SHORT_NAMES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCES_FIELD_NUMBER: _ClassVar[int]
    SINGULAR_FIELD_NUMBER: _ClassVar[int]
    resource: _object_pb2.ResourceRef
    kind: str
    namespaced: bool
    verbs: _containers.RepeatedScalarFieldContainer[str]
    short_names: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    subresources: _containers.RepeatedScalarFieldContainer[str]
    singular: str
    def __init__(self, resource: _Optional[_Union[_object_pb2.ResourceRef, _Mapping]] = ..., kind: _Optional[str] = ..., namespaced: _Optional[bool] = ..., verbs: _Optional[_Iterable[str]] = ..., short_names: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., subresources: _Optional[_Iterable[str]] = ..., singular: _Optional[str] = ...) -> None: ...

class DiscoverResponse(_message.Message):
    __slots__ = ("resources", "version")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[ServedResource]
    version: str
    def __init__(self, resources: _Optional[_Iterable[_Union[ServedResource, _Mapping]]] = ..., version: _Optional[str] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("namespace", "pod")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ...) -> None: ...

class PluginVerdict(_message.Message):
    __slots__ = ("plugin", "fits", "reason", "remedy", "score", "weight")
    PLUGIN_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    plugin: str
    fits: bool
    reason: str
    remedy: str
    score: int
    weight: int
    def __init__(self, plugin: _Optional[str] = ..., fits: _Optional[bool] = ..., reason: _Optional[str] = ..., remedy: _Optional[str] = ..., score: _Optional[int] = ..., weight: _Optional[int] = ...) -> None: ...

class NodeVerdict(_message.Message):
    __slots__ = ("node", "fits", "plugins", "total_score")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    PLUGINS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    node: str
    fits: bool
    plugins: _containers.RepeatedCompositeFieldContainer[PluginVerdict]
    total_score: int
    def __init__(self, node: _Optional[str] = ..., fits: _Optional[bool] = ..., plugins: _Optional[_Iterable[_Union[PluginVerdict, _Mapping]]] = ..., total_score: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("bound_node", "chosen_node", "nodes", "summary", "remedies")
    BOUND_NODE_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_NODE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    REMEDIES_FIELD_NUMBER: _ClassVar[int]
    bound_node: str
    chosen_node: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeVerdict]
    summary: str
    remedies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bound_node: _Optional[str] = ..., chosen_node: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodeVerdict, _Mapping]]] = ..., summary: _Optional[str] = ..., remedies: _Optional[_Iterable[str]] = ...) -> None: ...

class SimulateRequest(_message.Message):
    __slots__ = ("pods", "more_of_last_max")
    PODS_FIELD_NUMBER: _ClassVar[int]
    MORE_OF_LAST_MAX_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedScalarFieldContainer[bytes]
    more_of_last_max: int
    def __init__(self, pods: _Optional[_Iterable[bytes]] = ..., more_of_last_max: _Optional[int] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("pod", "node", "reason")
    POD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    pod: str
    node: str
    reason: str
    def __init__(self, pod: _Optional[str] = ..., node: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SimulateResponse(_message.Message):
    __slots__ = ("placements", "more_of_last", "more_of_last_by_node")
    class MoreOfLastByNodeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_OF_LAST_FIELD_NUMBER: _ClassVar[int]
    MORE_OF_LAST_BY_NODE_FIELD_NUMBER: _ClassVar[int]
    placements: _containers.RepeatedCompositeFieldContainer[Placement]
    more_of_last: int
    more_of_last_by_node: _containers.ScalarMap[str, int]
    def __init__(self, placements: _Optional[_Iterable[_Union[Placement, _Mapping]]] = ..., more_of_last: _Optional[int] = ..., more_of_last_by_node: _Optional[_Mapping[str, int]] = ...) -> None: ...

class QueueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueuedPod(_message.Message):
    __slots__ = ("namespace", "pod", "queue", "attempts", "waited_seconds", "backoff_seconds", "waits_for_plugins", "message")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WAITED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_PLUGINS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    queue: str
    attempts: int
    waited_seconds: float
    backoff_seconds: float
    waits_for_plugins: _containers.RepeatedScalarFieldContainer[str]
    message: str
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., queue: _Optional[str] = ..., attempts: _Optional[int] = ..., waited_seconds: _Optional[float] = ..., backoff_seconds: _Optional[float] = ..., waits_for_plugins: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ...) -> None: ...

class QueueResponse(_message.Message):
    __slots__ = ("pods",)
    PODS_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[QueuedPod]
    def __init__(self, pods: _Optional[_Iterable[_Union[QueuedPod, _Mapping]]] = ...) -> None: ...

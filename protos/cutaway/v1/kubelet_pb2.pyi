from protos.cutaway.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListPodsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KubeletContainer(_message.Message):
    __slots__ = ("name", "id", "state", "reason", "exit_code", "restart_count", "ready")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    state: str
    reason: str
    exit_code: int
    restart_count: int
    ready: bool
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., exit_code: _Optional[int] = ..., restart_count: _Optional[int] = ..., ready: _Optional[bool] = ...) -> None: ...

class KubeletPod(_message.Message):
    __slots__ = ("namespace", "name", "uid", "phase", "ip", "sandbox_id", "containers", "worker", "error")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    phase: str
    ip: str
    sandbox_id: str
    containers: _containers.RepeatedCompositeFieldContainer[KubeletContainer]
    worker: str
    error: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., phase: _Optional[str] = ..., ip: _Optional[str] = ..., sandbox_id: _Optional[str] = ..., containers: _Optional[_Iterable[_Union[KubeletContainer, _Mapping]]] = ..., worker: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ListPodsResponse(_message.Message):
    __slots__ = ("pods",)
    PODS_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[KubeletPod]
    def __init__(self, pods: _Optional[_Iterable[_Union[KubeletPod, _Mapping]]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Usage(_message.Message):
    __slots__ = ("cpu_usage_core_nanoseconds", "cpu_usage_nanocores", "memory_working_set_bytes", "memory_usage_bytes", "memory_rss_bytes", "network_received_bytes", "network_sent_bytes", "file_system_used_bytes")
    CPU_USAGE_CORE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_NANOCORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_WORKING_SET_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_SYSTEM_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_usage_core_nanoseconds: int
    cpu_usage_nanocores: int
    memory_working_set_bytes: int
    memory_usage_bytes: int
    memory_rss_bytes: int
    network_received_bytes: int
    network_sent_bytes: int
    file_system_used_bytes: int
    def __init__(self, cpu_usage_core_nanoseconds: _Optional[int] = ..., cpu_usage_nanocores: _Optional[int] = ..., memory_working_set_bytes: _Optional[int] = ..., memory_usage_bytes: _Optional[int] = ..., memory_rss_bytes: _Optional[int] = ..., network_received_bytes: _Optional[int] = ..., network_sent_bytes: _Optional[int] = ..., file_system_used_bytes: _Optional[int] = ...) -> None: ...

class ContainerStats(_message.Message):
    __slots__ = ("name", "usage")
    NAME_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    usage: Usage
    def __init__(self, name: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class PodStats(_message.Message):
    __slots__ = ("namespace", "name", "uid", "usage", "containers")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    usage: Usage
    containers: _containers.RepeatedCompositeFieldContainer[ContainerStats]
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., containers: _Optional[_Iterable[_Union[ContainerStats, _Mapping]]] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("node", "usage", "pods")
    NODE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    node: str
    usage: Usage
    pods: _containers.RepeatedCompositeFieldContainer[PodStats]
    def __init__(self, node: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., pods: _Optional[_Iterable[_Union[PodStats, _Mapping]]] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainObjectRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("subject", "problem", "remedy", "because")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    problem: str
    remedy: str
    because: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, subject: _Optional[str] = ..., problem: _Optional[str] = ..., remedy: _Optional[str] = ..., because: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class ExplainObjectResponse(_message.Message):
    __slots__ = ("findings",)
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class ListControllersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ControllerState(_message.Message):
    __slots__ = ("name", "running", "paused", "queue_depth", "in_work", "retrying", "reconciles_total", "errors_total", "last_error", "last_error_key", "last_error_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    IN_WORK_FIELD_NUMBER: _ClassVar[int]
    RETRYING_FIELD_NUMBER: _ClassVar[int]
    RECONCILES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ERRORS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_KEY_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    running: bool
    paused: bool
    queue_depth: int
    in_work: int
    retrying: int
    reconciles_total: int
    errors_total: int
    last_error: str
    last_error_key: str
    last_error_time: str
    def __init__(self, name: _Optional[str] = ..., running: _Optional[bool] = ..., paused: _Optional[bool] = ..., queue_depth: _Optional[int] = ..., in_work: _Optional[int] = ..., retrying: _Optional[int] = ..., reconciles_total: _Optional[int] = ..., errors_total: _Optional[int] = ..., last_error: _Optional[str] = ..., last_error_key: _Optional[str] = ..., last_error_time: _Optional[str] = ...) -> None: ...

class ListControllersResponse(_message.Message):
    __slots__ = ("controllers", "leading", "leader")
    CONTROLLERS_FIELD_NUMBER: _ClassVar[int]
    LEADING_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    controllers: _containers.RepeatedCompositeFieldContainer[ControllerState]
    leading: bool
    leader: str
    def __init__(self, controllers: _Optional[_Iterable[_Union[ControllerState, _Mapping]]] = ..., leading: _Optional[bool] = ..., leader: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("controller",)
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    controller: str
    def __init__(self, controller: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("controller",)
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    controller: str
    def __init__(self, controller: _Optional[str] = ...) -> None: ...

class ResyncRequest(_message.Message):
    __slots__ = ("controller", "key")
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    controller: str
    key: str
    def __init__(self, controller: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListRoutesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Route(_message.Message):
    __slots__ = ("host", "path", "path_type", "namespace", "ingress", "service", "service_port", "endpoints", "tls_secret", "error")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PATH_TYPE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_PORT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    TLS_SECRET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    host: str
    path: str
    path_type: str
    namespace: str
    ingress: str
    service: str
    service_port: str
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    tls_secret: str
    error: str
    def __init__(self, host: _Optional[str] = ..., path: _Optional[str] = ..., path_type: _Optional[str] = ..., namespace: _Optional[str] = ..., ingress: _Optional[str] = ..., service: _Optional[str] = ..., service_port: _Optional[str] = ..., endpoints: _Optional[_Iterable[str]] = ..., tls_secret: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ListRoutesResponse(_message.Message):
    __slots__ = ("routes", "proxy_error")
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    PROXY_ERROR_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    proxy_error: str
    def __init__(self, routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., proxy_error: _Optional[str] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRulesetRequest(_message.Message):
    __slots__ = ("namespace", "service")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class FollowRulesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RulesChange(_message.Message):
    __slots__ = ("changed", "removed", "revision", "commands")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    changed: _containers.RepeatedCompositeFieldContainer[RulesetService]
    removed: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    commands: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed: _Optional[_Iterable[_Union[RulesetService, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., commands: _Optional[_Iterable[str]] = ...) -> None: ...

class RulesetEndpoint(_message.Message):
    __slots__ = ("ip", "port", "node", "local")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    node: str
    local: bool
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., node: _Optional[str] = ..., local: _Optional[bool] = ...) -> None: ...

class RulesetService(_message.Message):
    __slots__ = ("namespace", "name", "port_name", "protocol", "cluster_ips", "port", "node_port", "external_ips", "load_balancer_ips", "session_affinity", "chain", "endpoints")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORT_NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_IPS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NODE_PORT_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_IPS_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_IPS_FIELD_NUMBER: _ClassVar[int]
    SESSION_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    port_name: str
    protocol: str
    cluster_ips: _containers.RepeatedScalarFieldContainer[str]
    port: int
    node_port: int
    external_ips: _containers.RepeatedScalarFieldContainer[str]
    load_balancer_ips: _containers.RepeatedScalarFieldContainer[str]
    session_affinity: str
    chain: str
    endpoints: _containers.RepeatedCompositeFieldContainer[RulesetEndpoint]
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., port_name: _Optional[str] = ..., protocol: _Optional[str] = ..., cluster_ips: _Optional[_Iterable[str]] = ..., port: _Optional[int] = ..., node_port: _Optional[int] = ..., external_ips: _Optional[_Iterable[str]] = ..., load_balancer_ips: _Optional[_Iterable[str]] = ..., session_affinity: _Optional[str] = ..., chain: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[RulesetEndpoint, _Mapping]]] = ...) -> None: ...

class Ruleset(_message.Message):
    __slots__ = ("table", "services", "revision")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    table: str
    services: _containers.RepeatedCompositeFieldContainer[RulesetService]
    revision: int
    def __init__(self, table: _Optional[str] = ..., services: _Optional[_Iterable[_Union[RulesetService, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("source_ip", "destination_ip", "port", "protocol")
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    source_ip: str
    destination_ip: str
    port: int
    protocol: str
    def __init__(self, source_ip: _Optional[str] = ..., destination_ip: _Optional[str] = ..., port: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class TraceStep(_message.Message):
    __slots__ = ("at", "action", "rule")
    AT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    at: str
    action: str
    rule: str
    def __init__(self, at: _Optional[str] = ..., action: _Optional[str] = ..., rule: _Optional[str] = ...) -> None: ...

class TraceResponse(_message.Message):
    __slots__ = ("verdict", "steps", "endpoints", "masqueraded", "namespace", "service")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    MASQUERADED_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    verdict: str
    steps: _containers.RepeatedCompositeFieldContainer[TraceStep]
    endpoints: _containers.RepeatedCompositeFieldContainer[RulesetEndpoint]
    masqueraded: bool
    namespace: str
    service: str
    def __init__(self, verdict: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[TraceStep, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[RulesetEndpoint, _Mapping]]] = ..., masqueraded: _Optional[bool] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class PolicyVerdict(_message.Message):
    __slots__ = ("direction", "allowed", "policies", "allowed_by", "held")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_BY_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    direction: str
    allowed: bool
    policies: _containers.RepeatedScalarFieldContainer[str]
    allowed_by: str
    held: bool
    def __init__(self, direction: _Optional[str] = ..., allowed: _Optional[bool] = ..., policies: _Optional[_Iterable[str]] = ..., allowed_by: _Optional[str] = ..., held: _Optional[bool] = ...) -> None: ...

class TracePolicyResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[PolicyVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[PolicyVerdict, _Mapping]]] = ...) -> None: ...

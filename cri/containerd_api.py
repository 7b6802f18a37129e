"""containerd's gRPC API from the descriptors of the `containerd` package.

That package's generated modules were made for protobuf 3 and do not import under protobuf 4 and later, but the
descriptors inside them are the wire format itself. Each `*_pb2.py` is read as text, its `serialized_pb` constant is
evaluated with `ast.literal_eval` (never executed), and the files go into a descriptor pool of our own, so that they
can't collide with other packages' copies of gogoproto. Message classes are made on first use.
"""

import ast
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.message import Message
from google.rpc import status_pb2

# What the shim calls, dependencies first.
_FILES = (
    "vendor/gogoproto/gogo",
    "protobuf/plugin/fieldpath",
    "types/mount",
    "types/descriptor",
    "types/metrics",
    "types/platform",
    "types/task/task",
    "events/task",
    "services/containers/v1/containers",
    "services/content/v1/content",
    "services/diff/v1/diff",
    "services/events/v1/events",
    "services/images/v1/images",
    "services/introspection/v1/introspection",
    "services/leases/v1/leases",
    "services/namespaces/v1/namespace",
    "services/snapshots/v1/snapshots",
    "services/tasks/v1/tasks",
    "services/version/v1/version",
)

_WELL_KNOWN = (descriptor_pb2, any_pb2, empty_pb2, field_mask_pb2, timestamp_pb2, status_pb2)

# The options of containerd-shim-runc-v2 are not part of the package; these are the fields we set, by their numbers.
RUNC_OPTIONS_TYPE = "containerd.runc.v1.Options"
_RUNC_OPTIONS = (
    ("no_new_keyring", 2, "bool"),
    ("binary_name", 6, "string"),
    ("root", 7, "string"),
    ("systemd_cgroup", 9, "bool"),
)


def _serialized_descriptor(path: Path) -> bytes:
    """The bytes of `serialized_pb=b'…'` in a generated module: one literal on one line."""
    text = path.read_text(encoding="utf-8")
    start = text.index("serialized_pb=") + len("serialized_pb=")
    literal = text[start : text.index("\n", start)].strip().rstrip(",)")
    value = ast.literal_eval(literal)
    if not isinstance(value, bytes):
        raise TypeError(f"{path}: serialized_pb is not bytes")
    return value


def _runc_options_file() -> descriptor_pb2.FileDescriptorProto:
    kinds = {
        "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
        "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="cutaway/runc_options.proto", package="containerd.runc.v1", syntax="proto3"
    )
    message = file.message_type.add(name="Options")
    for name, number, kind in _RUNC_OPTIONS:
        message.field.add(
            name=name, number=number, type=kinds[kind], label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        )
    return file


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    spec = importlib.util.find_spec("containerd")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the Python package 'containerd' is not installed: pip install 'containerd==1.5.3'")
    root = Path(spec.submodule_search_locations[0])
    pool = descriptor_pool.DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for name in _FILES:
        pool.AddSerializedFile(_serialized_descriptor(root / f"{name}_pb2.py"))
    pool.Add(_runc_options_file())
    return pool


@cache
def message(full_name: str) -> type[Message]:
    """The message class of a full name, as `containerd.types.Mount`."""
    cls: type[Message] = message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))
    return cls


class Messages:
    """The messages of one protobuf package as attributes: `tasks.CreateTaskRequest(container_id=…)`."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        cls = message(f"{self._package}.{name}")
        setattr(self, name, cls)
        return cls


types = Messages("containerd.types")
task_types = Messages("containerd.v1.types")
event_types = Messages("containerd.events")
containers = Messages("containerd.services.containers.v1")
content = Messages("containerd.services.content.v1")
diff = Messages("containerd.services.diff.v1")
events = Messages("containerd.services.events.v1")
images = Messages("containerd.services.images.v1")
introspection = Messages("containerd.services.introspection.v1")
leases = Messages("containerd.services.leases.v1")
namespaces = Messages("containerd.services.namespaces.v1")
snapshots = Messages("containerd.services.snapshots.v1")
tasks = Messages("containerd.services.tasks.v1")
version = Messages("containerd.services.version.v1")
well_known = Messages("google.protobuf")

SERVICES = {
    "containers": "containerd.services.containers.v1.Containers",
    "content": "containerd.services.content.v1.Content",
    "diff": "containerd.services.diff.v1.Diff",
    "events": "containerd.services.events.v1.Events",
    "images": "containerd.services.images.v1.Images",
    "introspection": "containerd.services.introspection.v1.Introspection",
    "leases": "containerd.services.leases.v1.Leases",
    "namespaces": "containerd.services.namespaces.v1.Namespaces",
    "snapshots": "containerd.services.snapshots.v1.Snapshots",
    "tasks": "containerd.services.tasks.v1.Tasks",
    "version": "containerd.services.version.v1.Version",
}


def methods(service: str) -> Iterator[tuple[str, type[Message], type[Message], bool, bool]]:
    """(name, request class, response class, client streams, server streams) of each method of a service."""
    for method in _pool().FindServiceByName(service).methods:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        yield method.name, request, response, method.client_streaming, method.server_streaming


class Stub:
    """The calls of one service on a channel: `stub.Create(request, metadata=…, timeout=…)`."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        for name, request, response, client_streams, server_streams in methods(service):
            kind = f"{'stream' if client_streams else 'unary'}_{'stream' if server_streams else 'unary'}"
            factory: Callable[..., Any] = getattr(channel, kind)
            call = factory(
                f"/{service}/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            setattr(self, name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"containerd's service has no method {name}")

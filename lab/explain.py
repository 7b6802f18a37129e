"""`cutaway explain`: asks the controller-manager why an object is not as desired, and puts the answer on a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from lab import admin
from lab.cluster import MASTER_PORT_STEP, Cluster
from lab.errors import LabError
from machinery.api import errors, kind_words, kinds
from machinery.api.kinds import Kind
from machinery.component import grpc_errors, tls
from protos.cutaway.v1 import controller_manager_pb2 as pb
from protos.cutaway.v1 import controller_manager_pb2_grpc

ASK_SECONDS = 30.0
# What people watch and simulate by name; what can be explained the controller-manager knows.
_NAMED = (
    kinds.POD, kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET, kinds.DAEMON_SET, kinds.REPLICATION_CONTROLLER,
    kinds.JOB, kinds.SERVICE, kinds.INGRESS, kinds.PERSISTENT_VOLUME_CLAIM, kinds.NAMESPACE, kinds.NODE,
    kinds.RESOURCE_QUOTA, kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER,
)  # fmt: skip


async def explain(cluster: Cluster, word: str, namespace: str, name: str) -> list[pb.Finding]:
    """The chain of causes of one object; empty if it is as desired. Raises LabError."""
    mine = admin.identity(cluster)
    files = tls.TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
    request = pb.ExplainObjectRequest(kind=word, namespace=namespace, name=name)
    for index in range(cluster.masters):
        address = f"127.0.0.1:{cluster.port(10357) + MASTER_PORT_STEP * index}"
        async with grpc.aio.secure_channel(address, tls.channel_credentials(files)) as channel:
            stub: Any = controller_manager_pb2_grpc.ControllerManagerStub(channel)  # type: ignore[no-untyped-call]
            try:
                return list((await stub.Explain(request, timeout=ASK_SECONDS)).findings)
            except grpc.aio.AioRpcError as rpc_error:
                error = grpc_errors.from_rpc_error(rpc_error)
        if isinstance(error, errors.NotFound):
            raise LabError(f"{word} {namespace}/{name} does not exist") from error
        if not isinstance(error, errors.ServiceUnavailable | errors.Timeout):
            raise LabError(error.message) from error
    raise LabError(
        f"the controller-manager, who explains, does not answer ({error.message})",
        "`cutaway status` shows what is ill; `cutaway start controller-manager` starts what was stopped",
    )


def kind_of(word: str) -> Kind:
    """The kind that a person means by "pod", "pods", "po" or "Pod". Raises LabError with what there is."""
    found = kind_words.named(word, _NAMED)
    if found is None:
        raise LabError(f"{word!r} is no kind that is known here", f"{', '.join(k.kind.lower() for k in _NAMED)}")
    return found


def to_dict(finding: pb.Finding) -> dict[str, Any]:
    """For `-o json`."""
    because = [to_dict(each) for each in finding.because]
    return {"subject": finding.subject, "problem": finding.problem, "remedy": finding.remedy, "because": because}


def render(findings: Iterable[pb.Finding], depth: int = 0) -> list[str]:
    """Lines for a screen: each cause below what it causes."""
    lines = []
    for finding in findings:
        indent = "  " * depth
        lines.append(f"{indent}{'└ ' if depth else ''}{finding.subject} {finding.problem}")
        if finding.remedy:
            lines.append(f"{indent}{'  ' if depth else ''}  → {finding.remedy}")
        lines += render(finding.because, depth + 1)
    return lines

"""The gRPC ports: who gets in, and that the other transport refuses what REST refuses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.pki import Identity, Pki
from machinery.component import tls
from machinery.component.tls import TlsFiles
from protos.cutaway.v1 import apiserver_pb2 as pb
from protos.cutaway.v1 import apiserver_pb2_grpc, object_pb2, stream_pb2
from tests.integration.security.conftest import Target
from tests.integration.security.test_what import RBAC, grant, rule
from tests.integration.security.test_who import forged
from tests.support.apiserver_process import files

SECONDS = 5.0


def channel(target: Target, identity: Identity | None) -> grpc.aio.Channel:
    """A channel to the apiserver; without a certificate if there is no identity."""
    if identity is None:
        credentials = grpc.ssl_channel_credentials(target.pki.ca_file.read_bytes())
    else:
        credentials = tls.channel_credentials(
            TlsFiles(
                ca_file=str(target.pki.ca_file), cert_file=str(identity.cert_file), key_file=str(identity.key_file)
            )
        )
    return grpc.aio.secure_channel(target.process.grpc, credentials)


def stub(target: Target, identity: Identity | None) -> Any:
    return apiserver_pb2_grpc.ApiServerStub(channel(target, identity))  # type: ignore[no-untyped-call]


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        async with asyncio.timeout(SECONDS):
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def ref(plural: str, group: str = "", version: str = "v1") -> object_pb2.ResourceRef:
    return object_pb2.ResourceRef(group=group, version=version, resource=plural)


@pytest.mark.parametrize("credential", ["none", "another authority", "expired", "a server's"])
async def test_only_the_clusters_own_clients_get_in(target: Target, tmp_path: Path, credential: str) -> None:
    identity: Identity | None = None
    if credential == "another authority":
        other = Pki(tmp_path / "other")
        other.ensure("other")
        identity = other.client("admin", "kubernetes-admin", ["system:masters"])
    elif credential == "expired":
        identity = forged(target, tmp_path, usage=ExtendedKeyUsageOID.CLIENT_AUTH, days=(-10, -1))
    elif credential == "a server's":
        identity = forged(target, tmp_path, usage=ExtendedKeyUsageOID.SERVER_AUTH, days=(-1, 10))
    own = stub(target, identity)
    assert await code_of(own.Discover(pb.DiscoverRequest(), timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE


async def test_a_server_by_another_name_or_with_a_clients_certificate_is_not_believed(target: Target) -> None:
    credentials = tls.channel_credentials(files(target.process.admin))
    named = grpc.aio.secure_channel(
        target.process.grpc, credentials, options=[("grpc.ssl_target_name_override", "elsewhere.example")]
    )
    wrong = apiserver_pb2_grpc.ApiServerStub(named)  # type: ignore[no-untyped-call]
    assert await code_of(wrong.Discover(pb.DiscoverRequest(), timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE
    # A member of the cluster poses as a server with its own certificate.
    mallory = target.user("mallory", "system:nodes")
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(files(mallory)))
    await server.start()
    false = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials)
    posing = apiserver_pb2_grpc.ApiServerStub(false)  # type: ignore[no-untyped-call]
    assert await code_of(posing.Discover(pb.DiscoverRequest(), timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)


@pytest_asyncio.fixture
async def scoped(target: Target) -> AsyncIterator[Any]:
    """Somebody who may do everything inside the namespace default."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "grpc-scoped", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "grpc-scoped"}],
    }
    await target.create(f"{RBAC}/namespaces/default/rolebindings", binding)
    open_channel = channel(target, target.user("grpc-scoped"))
    yield apiserver_pb2_grpc.ApiServerStub(open_channel)  # type: ignore[no-untyped-call]
    await open_channel.close()


async def test_a_cluster_scoped_object_is_not_reachable_below_a_namespace(target: Target, scoped: Any) -> None:
    """CVE-2019-11247, by the other transport."""
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "up"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    }
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "evil"}}
    bindings = ref("clusterrolebindings", "rbac.authorization.k8s.io")
    reviews = ref("tokenreviews", "authentication.k8s.io")
    creations = [
        pb.CreateRequest(resource=where, namespace="default", json=json.dumps(body).encode())
        for where, body in ((ref("nodes"), node), (bindings, role), (reviews, token))
    ]
    refused = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
    for creation in creations:
        assert await code_of(scoped.Create(creation, timeout=SECONDS)) in refused
    batch = pb.BatchRequest(mutations=[pb.Mutation(create=creation) for creation in creations])
    async with asyncio.timeout(SECONDS):
        assert all(result.HasField("error") for result in (await scoped.Batch(batch, timeout=SECONDS)).results)
    one = {"resource": ref("nodes"), "namespace": "default", "name": "evil"}
    for call in (
        scoped.Get(pb.GetRequest(**one), timeout=SECONDS),
        scoped.History(pb.HistoryRequest(**one), timeout=SECONDS),
        scoped.Delete(pb.DeleteRequest(**one), timeout=SECONDS),
        scoped.Patch(pb.PatchRequest(**one, type=pb.PatchRequest.MERGE, patch=b"{}"), timeout=SECONDS),
        scoped.DeleteCollection(
            pb.DeleteCollectionRequest(resource=ref("nodes"), namespace="default"), timeout=SECONDS
        ),
    ):
        assert await code_of(call) in refused
    listing = scoped.List(pb.ListRequest(resource=ref("nodes"), namespace="default"), timeout=SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as found:
        async for _ in listing:
            pass
    assert found.value.code() in refused
    own = pb.GetRequest(resource=ref("namespaces"), name="default")
    assert await code_of(scoped.Get(own, timeout=SECONDS)) is grpc.StatusCode.OK


POLICIES = "/apis/admissionregistration.k8s.io/v1"


async def test_admission_is_asked_about_a_session_whichever_way_it_comes(target: Target) -> None:
    await target.create(
        f"{POLICIES}/validatingadmissionpolicies",
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "no-exec"},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
                         "resources": ["pods/exec", "pods/attach", "pods/portforward"]}
                    ]
                },
                "validations": [{"expression": "false", "message": "nobody goes in here"}],
            },
        },
    )  # fmt: skip
    await target.create(
        f"{POLICIES}/validatingadmissionpolicybindings",
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "no-exec"},
            "spec": {"policyName": "no-exec", "validationActions": ["Deny"]},
        },
    )
    await grant(target, "execer", rule("create,get", "pods/exec,pods/attach,pods/portforward"))
    own = stub(target, target.user("execer"))
    start = stream_pb2.ExecStart(namespace="default", pod="none", command=["id"], stdout=True)

    async def first(method: str, frame: Any) -> str:
        async def frames() -> AsyncIterator[Any]:
            yield frame

        with pytest.raises(grpc.aio.AioRpcError) as found:
            async for _ in getattr(own, method)(frames(), timeout=SECONDS):
                pass
        return f"{found.value.code().name} {found.value.details()}"

    forward = stream_pb2.PortForwardStart(namespace="default", pod="none")
    for method, frame in (
        ("Exec", stream_pb2.ExecInput(start=start)),
        ("Attach", stream_pb2.ExecInput(start=start)),
        ("PortForward", stream_pb2.PortForwardFrame(start=forward)),
    ):
        said = await first(method, frame)
        assert "nobody goes in here" in said, said


async def test_a_yaml_bomb_as_an_apply_patch_is_refused(target: Target) -> None:
    from tests.integration.security.test_denial_of_service import bomb

    own = stub(target, target.process.admin)
    patch = pb.PatchRequest(
        resource=ref("configmaps"), namespace="default", name="x", type=pb.PatchRequest.APPLY, patch=bomb(),
        options=pb.WriteOptions(field_manager="me"),
    )  # fmt: skip
    assert await code_of(own.Patch(patch, timeout=SECONDS)) is grpc.StatusCode.INVALID_ARGUMENT
    patch.patch = b"[" * 100_000
    assert await code_of(own.Patch(patch, timeout=SECONDS)) is grpc.StatusCode.INVALID_ARGUMENT


def test_the_forged_certificates_are_otherwise_good(target: Target, tmp_path: Path) -> None:
    """What the attacks above are refused for is the one thing that is wrong with them."""
    good = forged(target, tmp_path, usage=ExtendedKeyUsageOID.CLIENT_AUTH, days=(-1, 10))
    context = target.context(good)
    raw = socket.create_connection(("127.0.0.1", target.process.rest_port), SECONDS)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as session:
        session.sendall(b"GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert session.recv(12) == b"HTTP/1.1 200"

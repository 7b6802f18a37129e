"""Controllers of a few lines: signatures of cluster-info, ranges of cluster IPs."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from joserfc import jws
from joserfc.jwk import OctKey

from machinery.api import kinds
from services.controller_manager.controllers.bootstrap_signer import controller as signer
from services.controller_manager.controllers.service_cidr import plan as ranges
from services.controller_manager.controllers.token_cleanup.controller import TokenSecret
from services.controller_manager.views.meta import Meta
from tests.support.plan_world import World

CONTENT = "apiVersion: v1\nkind: Config\n"


def token(token_id: str = "abcdef", **data: str) -> TokenSecret:
    values = {"token-id": token_id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", **data}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in values.items()}
    return TokenSecret(Meta(name=f"bootstrap-token-{token_id}", namespace="kube-system"), encoded)


def info(**data: str) -> signer.ClusterInfo:
    return signer.ClusterInfo(Meta(name="cluster-info", namespace="kube-public"), {"kubeconfig": CONTENT, **data})


def test_a_signature_is_verified_by_another_library_with_the_tokens_secret() -> None:
    header, _, mac = signer.signature(CONTENT, "abcdef", "0123456789abcdef").split(".")
    attached = f"{header}.{base64.urlsafe_b64encode(CONTENT.encode()).rstrip(b'=').decode()}.{mac}"
    found = jws.deserialize_compact(attached, OctKey.import_key(b"0123456789abcdef"))
    assert found.payload.decode() == CONTENT
    assert found.headers() == {"alg": "HS256", "kid": "abcdef"}


def test_only_tokens_that_may_sign_do_and_stale_signatures_go() -> None:
    now = World().now
    secrets = [
        token(),
        token("ghijkl", **{"usage-bootstrap-signing": "false"}),
        token("mnopqr", expiration="2001-01-01T00:00:00Z"),
        token("stuvwx", expiration="2099-01-01T00:00:00Z"),
    ]
    (patch,) = signer.plan(info(**{"jws-kubeconfig-gone": "x..y"}), secrets, now).actions
    changed = patch.patch["data"]
    assert changed.pop("jws-kubeconfig-gone") is None
    assert set(changed) == {"jws-kubeconfig-abcdef", "jws-kubeconfig-stuvwx"}
    assert signer.plan(info(**changed), secrets, now).actions == []
    assert signer.plan(None, secrets, now).actions == []


def cidr(world: World, name: str, *cidrs: str) -> Any:
    world.create(
        {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
         "spec": {"cidrs": list(cidrs)}}
    )  # fmt: skip


def step(world: World, name: str, *addresses: str) -> float | None:
    """One look at a range while Services hold these addresses."""
    every = world.views(kinds.SERVICE_CIDR)
    own = next(each for each in every if each.metadata.name == name)
    others = [each for each in every if each is not own]
    plan = ranges.plan(own, others, [ipaddress.ip_address(text) for text in addresses], world.now)
    world.apply(plan.actions)
    assert not world.errors
    return plan.requeue_after


def test_a_range_is_ready_and_protected_until_no_address_needs_it() -> None:
    world = World()
    cidr(world, "kubernetes", "10.0.0.0/24")
    cidr(world, "extra", "10.1.0.0/24")
    step(world, "extra")
    view = world.view(kinds.SERVICE_CIDR, "extra")
    assert view.status["conditions"][0]["status"] == "True"
    assert ranges.FINALIZER in view.metadata.finalizers
    world.state.delete(kinds.SERVICE_CIDR, "", "extra")
    step(world, "extra", "10.0.0.1", "10.1.0.7")
    condition = world.view(kinds.SERVICE_CIDR, "extra").status["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "Terminating")
    assert step(world, "extra", "10.0.0.1") == 10.0, "apiservers may not have heard of the deletion"
    world.advance(11)
    step(world, "extra", "10.0.0.1")
    assert [each.metadata.name for each in world.views(kinds.SERVICE_CIDR)] == ["kubernetes"]


def test_a_range_within_another_may_go_whatever_is_in_it() -> None:
    world = World()
    cidr(world, "kubernetes", "10.0.0.0/16")
    cidr(world, "part", "10.0.8.0/24")
    step(world, "part")
    world.state.delete(kinds.SERVICE_CIDR, "", "part")
    world.advance(11)
    step(world, "part", "10.0.8.9")
    assert [each.metadata.name for each in world.views(kinds.SERVICE_CIDR)] == ["kubernetes"]

"""Bootstrap tokens: what a Secret bears out, and what it does not."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from services.apiserver.auth.bootstrap_tokens import BootstrapTokens, groups_of

ID, SECRET = "abcdef", "0123456789abcdef"
NOW = 1_800_000_000.0


def stored(**changes: str | None) -> dict[str, Any]:
    data: dict[str, str | None] = {
        "token-id": ID,
        "token-secret": SECRET,
        "usage-bootstrap-authentication": "true",
        "expiration": "2030-01-01T00:00:00Z",
        "auth-extra-groups": "system:bootstrappers:cutaway:join",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return {
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{ID}", "namespace": "kube-system"},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items() if value is not None},
    }


def test_a_good_token_is_in_its_groups():
    assert groups_of(stored(), ID, SECRET, NOW) == ("system:bootstrappers", "system:bootstrappers:cutaway:join")
    assert groups_of(stored(auth_extra_groups=None, expiration=None), ID, SECRET, NOW) == ("system:bootstrappers",)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_secret": "0123456789abcdee"},
        {"token_secret": None},
        {"token_id": "abcdeg"},
        {"usage_bootstrap_authentication": "false"},
        {"usage_bootstrap_authentication": None},
        {"expiration": "2020-01-01T00:00:00Z"},
        {"expiration": "tomorrow"},
        {"auth_extra_groups": "system:masters"},
        {"auth_extra_groups": "system:bootstrappers:cutaway:join,system:nodes"},
    ],
)
def test_what_the_secret_does_not_bear_out_proves_nothing(changes):
    assert groups_of(stored(**changes), ID, SECRET, NOW) is None


def test_a_secret_of_another_type_or_on_its_way_out_proves_nothing():
    assert groups_of(stored() | {"type": "Opaque"}, ID, SECRET, NOW) is None
    leaving = stored()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert groups_of(leaving, ID, SECRET, NOW) is None


@pytest.mark.parametrize(
    "token", ["", "abcdef", "abcdef.short", f"ABCDEF.{SECRET}", f"../../x.{SECRET}", f"{ID}.{SECRET}\n"]
)
async def test_what_is_no_bootstrap_token_is_not_looked_up(token):
    def refuse(*_: str) -> None:
        raise AssertionError("looked up")

    assert await BootstrapTokens(refuse).user_of(token, ()) is None


async def test_the_user_is_named_after_the_token():
    looked: list[tuple[str, ...]] = []

    def get(*where: str) -> dict[str, Any]:
        looked.append(where)
        return stored()

    found = await BootstrapTokens(get, clock=lambda: NOW).user_of(f"{ID}.{SECRET}", ())
    assert found is not None
    user, audiences = found
    assert user.name == f"system:bootstrap:{ID}"
    assert user.groups[-1] == "system:authenticated"
    assert audiences == ()
    assert looked == [("secrets", "kube-system", f"bootstrap-token-{ID}")]

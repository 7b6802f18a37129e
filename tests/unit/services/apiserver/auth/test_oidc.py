"""ID tokens of an OpenID Connect provider."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from services.apiserver.auth.oidc import OidcSettings, OidcTokens

KEY = ECKey.generate_key("P-256", {"kid": "k1"})
OTHER = ECKey.generate_key("P-256", {"kid": "k1"})
ISSUER = "https://login.example"


class Provider(OidcTokens):
    """Keys without a network; counts how often they are fetched."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(OidcSettings(issuer_url=ISSUER, client_id="kube", **settings))
        self.fetches = 0

    async def _fetch(self) -> Any:
        self.fetches += 1
        return {"keys": [{**KEY.as_dict(private=False), "kid": "k1"}]}


def token(key: Any = KEY, alg: str = "ES256", **claims: Any) -> str:
    now = int(time.time())
    body = {"iss": ISSUER, "aud": "kube", "sub": "jane", "exp": now + 60, "groups": ["dev"], **claims}
    return jwt.encode({"alg": alg, "kid": "k1"}, body, key, algorithms=[alg])


async def test_claims_name_the_user_and_the_groups() -> None:
    provider = Provider(groups_claim="groups", groups_prefix="oidc:")
    found = await provider.user_of(token(), ())
    assert found is not None
    assert found[0].name == f"{ISSUER}#jane"
    assert found[0].groups == ("oidc:dev", "system:authenticated")
    await provider.user_of(token(), ())
    assert provider.fetches == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(iss="https://elsewhere"),
        lambda: token(aud="other"),
        lambda: token(exp=int(time.time()) - 1),
        lambda: token(exp="never"),
        lambda: token(nbf=int(time.time()) + 600),
        lambda: token(sub=""),
        lambda: token(OTHER),
        lambda: token(OctKey.import_key("secret" * 8), "HS256"),
        lambda: token() + "x",
        lambda: "a.b.c",
        lambda: "",
    ],
)
async def test_what_proves_nothing(bad: Any) -> None:
    assert await Provider().user_of(bad(), ()) is None


async def test_an_address_must_be_verified_and_required_claims_must_hold() -> None:
    by_mail = Provider(username_claim="email")
    found = await by_mail.user_of(token(email="j@example.org"), ())
    assert found is not None
    assert found[0].name == "j@example.org"
    assert await by_mail.user_of(token(email="j@example.org", email_verified=False), ()) is None
    strict = Provider(required_claims={"tenant": "a"})
    assert await strict.user_of(token(tenant="b"), ()) is None
    assert await strict.user_of(token(tenant="a"), ()) is not None


async def test_a_foreign_token_causes_no_fetching() -> None:
    provider = Provider()
    await provider.user_of(token(iss="https://elsewhere"), ())
    assert provider.fetches == 0


def test_settings_that_would_let_anyone_in_are_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        OidcTokens(OidcSettings(issuer_url="http://x", client_id="y"))
    with pytest.raises(ValueError, match="client_id"):
        OidcTokens(OidcSettings(issuer_url="https://x"))

"""How an OpenID Connect provider is configured; apart from `oidc`, so that configuration imports no HTTP client."""

from __future__ import annotations

import msgspec


class OidcSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """As upstream's --oidc-… flags."""

    issuer_url: str = ""
    client_id: str = ""
    username_claim: str = "sub"
    # None: the issuer's URL and "#", except before e-mail addresses. "-": nothing.
    username_prefix: str | None = None
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: dict[str, str] = {}
    ca_file: str = ""

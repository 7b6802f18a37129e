"""How a host finds the cluster's CA without being deceived.

The public `cluster-info` is fetched over a connection that proves nothing. It is believed only if it bears a signature
made with our token (a detached JWS, RFC 7515 appendix F, HS256) and, where a pin is given, if the CA in it has that
public key. Then it is fetched again over TLS by that CA, and must be the same. The token itself is sent only
after that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from lab.errors import LabError
from lab.join import rest
from lab.join.tokens import ca_hash

PATH = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """The cluster: its REST address "host:port" and its CA."""

    server: str
    ca_pem: bytes


def parse_token(text: str) -> tuple[str, str]:
    """(id, secret). Raises LabError."""
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        raise LabError("--token: not a token", "six letters or digits, a point, sixteen more: `cutaway token create`")
    return parts.group(1), parts.group(2)


def parse_server(text: str) -> str:
    """ "host:port"; the port is 6443 where none is given."""
    address = text.removeprefix("https://").rstrip("/")
    if not address or "/" in address:
        raise LabError(f"{text!r} is no address", "HOST:PORT of the masters, as `cutaway token create` prints it")
    return address if re.search(r":\d+$", address) else f"{address}:6443"


def discover(server: str, token: str, pin: str) -> Found:
    """The cluster at "host:port". Raises LabError if there is none, or if it can't prove that it is the token's.

    An empty `pin` relies on the signature alone: whoever knows the token could pose as the cluster.
    """
    token_id, secret = parse_token(token)
    if pin and not _HASH.fullmatch(pin):
        raise LabError(f"--ca-hash {pin!r}: not a hash", "sha256: and 64 hexadecimal digits")
    info = _data(rest.Rest(server, rest.trusting_nobody()))
    ca_pem = judge(info, token_id, secret, pin)
    again = _data(rest.Rest(server, rest.trusting(ca_pem)))
    if again["kubeconfig"] != info["kubeconfig"]:
        raise LabError(f"{server} tells different things about the cluster", "somebody may be in between: do not join")
    return Found(server, ca_pem)


def _data(client: rest.Rest) -> dict[str, str]:
    try:
        found: Any = client.get(PATH).get("data") or {}
    except rest.Refused as error:
        if error.code in (401, 403, 404):
            raise LabError(
                f"{client.server} tells nothing of its cluster", "`cutaway token create` makes it"
            ) from error
        raise
    if not isinstance(found.get("kubeconfig"), str):
        raise LabError(f"{client.server}: cluster-info has no kubeconfig", "`cutaway token create` makes it")
    return dict(found)


def judge(info: dict[str, str], token_id: str, secret: str, pin: str) -> bytes:
    """The CA in `info` (the data of cluster-info), if its signature by the token and its pin are right; PEM.

    Raises LabError.
    """
    signature = info.get(f"jws-kubeconfig-{token_id}")
    if not signature:
        raise LabError(f"the cluster does not know token {token_id}", "it may have expired: `cutaway token create`")
    if not hmac.compare_digest(signature, sign(info["kubeconfig"], token_id, secret)):
        raise LabError("cluster-info is not signed with this token", "somebody may be in between: do not join")
    try:
        entry = yaml.safe_load(info["kubeconfig"])["clusters"][0]["cluster"]
        ca_pem = base64.b64decode(entry["certificate-authority-data"], validate=True)
        found = ca_hash(ca_pem)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError, binascii.Error) as error:
        raise LabError(f"cluster-info holds no CA ({type(error).__name__})") from error
    if pin and not hmac.compare_digest(found, pin):
        raise LabError(f"the cluster's CA is {found}, not {pin}", "somebody may be in between: do not join")
    return ca_pem


def sign(content: str, token_id: str, secret: str) -> str:
    """The detached JWS "header..mac" of a content."""
    header = _base64(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    mac = hmac.digest(secret.encode(), f"{header}.{_base64(content.encode())}".encode(), hashlib.sha256)
    return f"{header}..{_base64(mac)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

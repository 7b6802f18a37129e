"""Annotations of an Ingress as options: each by its own strict grammar.

The names are ingress-nginx's, which charts and people write; the older prefix without "nginx." means the same. A value
that does not fit is left out and told. What would let somebody in whom the author meant to keep out is not left out:
the Ingress is not served.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

import msgspec

from services.ingress import grammar
from services.ingress.table import Affinity, Options

PREFIXES = ("nginx.ingress.kubernetes.io/", "ingress.kubernetes.io/")
PROTOCOLS = {"HTTP": "http", "HTTPS": "https", "GRPC": "grpc", "GRPCS": "grpcs"}
# Without these an Ingress would be open to more than its author meant.
GUARDS = ("auth-", "denylist-source-range", "global-auth", "satisfy", "enable-modsecurity", "limit-")
TIMEOUT_SECONDS_MAX = 86400
TRIES_MAX = 10
COOKIE = "INGRESSCOOKIE"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Parsed(msgspec.Struct):
    """What the annotations of one Ingress say."""

    options: Options = Options()
    rewrite_target: str = ""
    use_regex: bool = False
    # None: where the host has TLS.
    ssl_redirect: bool | None = None
    force_ssl_redirect: bool = False
    # Sentences about annotations that were left out.
    left_out: list[str] = []
    # Why the Ingress must not be served; empty: it may.
    refusal: str = ""


def parse(annotations: Mapping[str, str] | None) -> Parsed:
    """Options of an Ingress. Pure; never raises."""
    parsed = Parsed()
    given: dict[str, str] = {}
    for prefix in reversed(PREFIXES):
        for key, value in (annotations or {}).items():
            if key.startswith(prefix):
                given[key.removeprefix(prefix)] = value
    affinity: dict[str, str] = {}
    for name, value in sorted(given.items()):
        if name in ("affinity", "affinity-mode") or name.startswith("session-cookie-"):
            affinity[name] = value
            continue
        take = _TAKERS.get(name)
        wrong = take(parsed, value.strip()) if take is not None else "is not supported"
        if wrong is None:
            continue
        if (take is None and name.startswith(GUARDS)) or name in _GUARDING:
            parsed.refusal = f"annotation {name} {wrong}; not served rather than served without it"
        else:
            parsed.left_out.append(f"annotation {name} {wrong}; left out")
    _take_affinity(parsed, affinity)
    return parsed


def _set(parsed: Parsed, **fields: object) -> None:
    parsed.options = msgspec.structs.replace(parsed.options, **fields)


def _flag(field: str):  # type: ignore[no-untyped-def]
    def take(parsed: Parsed, value: str) -> str | None:
        if value not in ("true", "false"):
            return f"is {value!r}, neither true nor false"
        setattr(parsed, field, value == "true")
        return None

    return take


def _seconds(field: str):  # type: ignore[no-untyped-def]
    def take(parsed: Parsed, value: str) -> str | None:
        found = re.fullmatch(r"(\d{1,6})s?", value, re.ASCII)
        if found is None or not 1 <= int(found[1]) <= TIMEOUT_SECONDS_MAX:
            return f"is {value!r}, not 1 to {TIMEOUT_SECONDS_MAX} seconds"
        _set(parsed, **{field: int(found[1])})
        return None

    return take


def _body_size(parsed: Parsed, value: str) -> str | None:
    found = re.fullmatch(r"(\d{1,12})([kmg]?)", value.lower(), re.ASCII)
    if found is None:
        return f"is {value!r}, not a number of bytes with k, m or g"
    _set(parsed, body_bytes_max=int(found[1]) * _UNITS[found[2]] or None)
    return None


def _protocol(parsed: Parsed, value: str) -> str | None:
    known = PROTOCOLS.get(value.upper())
    if known is None:
        return f"is {value!r}, not one of {', '.join(PROTOCOLS)}"
    _set(parsed, protocol=known)
    return None


def _target(parsed: Parsed, value: str) -> str | None:
    wrong = grammar.rewrite_target(value)
    if wrong is None:
        parsed.rewrite_target = value
    return wrong


def _next_upstream(parsed: Parsed, value: str) -> str | None:
    words = value.split()
    unknown = [word for word in words if word not in ("off", "error", "timeout")]
    if not words or unknown:
        said = f"; {', '.join(unknown)} can't be had" if unknown else ""
        return f"is {value!r}, not off, or error and timeout{said}"
    _set(parsed, resend="off" not in words)
    return None


def _tries(parsed: Parsed, value: str) -> str | None:
    if not re.fullmatch(r"\d{1,2}", value, re.ASCII) or not 1 <= int(value) <= TRIES_MAX:
        return f"is {value!r}, not 1 to {TRIES_MAX}"
    # Theirs counts the first one too.
    _set(parsed, tries=int(value) - 1)
    return None


def _allow(parsed: Parsed, value: str) -> str | None:
    try:
        networks = [str(ipaddress.ip_network(word.strip(), strict=False)) for word in value.split(",")]
    except ValueError as error:
        return f"is {value!r}: {error}"
    _set(parsed, allow=tuple(networks))
    return None


def _take_affinity(parsed: Parsed, given: Mapping[str, str]) -> None:
    if "affinity" not in given:
        return
    if given["affinity"] != "cookie":
        parsed.left_out.append(f"annotation affinity is {given['affinity']!r}, not cookie; left out")
        return
    cookie = given.get("session-cookie-name", COOKIE)
    wrong = grammar.cookie_name(cookie)
    if wrong:
        parsed.left_out.append(f"annotation session-cookie-name {wrong}; {COOKIE} is used")
        cookie = COOKIE
    age = given.get("session-cookie-max-age", given.get("session-cookie-expires", "0"))
    if not re.fullmatch(r"\d{1,9}", age, re.ASCII):
        parsed.left_out.append(f"annotation session-cookie-max-age is {age!r}, not seconds; left out")
        age = "0"
    known = ("affinity", "affinity-mode", "session-cookie-name", "session-cookie-max-age", "session-cookie-expires")
    parsed.left_out += [f"annotation {name} is not supported; left out" for name in given if name not in known]
    _set(parsed, affinity=Affinity(cookie, int(age)))


_TAKERS = {
    "rewrite-target": _target,
    "use-regex": _flag("use_regex"),
    "ssl-redirect": _flag("ssl_redirect"),
    "force-ssl-redirect": _flag("force_ssl_redirect"),
    "backend-protocol": _protocol,
    "proxy-body-size": _body_size,
    "proxy-connect-timeout": _seconds("connect_seconds"),
    "proxy-read-timeout": _seconds("read_seconds"),
    "proxy-send-timeout": _seconds("send_seconds"),
    "proxy-next-upstream": _next_upstream,
    "proxy-next-upstream-tries": _tries,
    "whitelist-source-range": _allow,
    "allowlist-source-range": _allow,
}
# A rewrite or a range that was left out would show another part of the backend, or show it to everybody.
_GUARDING = ("rewrite-target", "whitelist-source-range", "allowlist-source-range")

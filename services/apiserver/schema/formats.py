"""String formats of custom resources' schemas (k8s.io/apiextensions-apiserver's supported formats). Others say
nothing.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from machinery.api.parsing import parses
from services.apiserver.schema import names

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z").match
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z").match
_HEX_COLOR = re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})\Z").match
_RGB = re.compile(r"rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)\Z").match
_MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\Z").match
_DURATION = re.compile(r"[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w))+\Z").match
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_ISBN = re.compile(r"(?:[0-9]{9}[0-9Xx]|[0-9]{13})\Z").match
_CARD = re.compile(r"[0-9]{13,19}\Z").match
_SSN = re.compile(r"\d{3}[- ]?\d{2}[- ]?\d{4}\Z").match

_UNIT_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
    "w": 604800.0,
}  # fmt: skip


def parse_duration(text: str) -> datetime.timedelta:
    """A Go duration (`1h30m`). ValueError if it isn't one."""
    if not _DURATION(text) and text != "0":
        raise ValueError(f"not a duration: {text!r}")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds)


def parse_date_time(text: str) -> datetime.datetime:
    """An RFC 3339 time. ValueError if it isn't one."""
    if len(text) < 20 or text[10] not in "Tt ":
        raise ValueError(f"not a date-time: {text!r}")
    found = datetime.datetime.fromisoformat(text.upper())
    if found.tzinfo is None:
        raise ValueError(f"not a date-time: {text!r}")
    return found


def _date(text: str) -> datetime.date:
    if len(text) != 10:
        raise ValueError(text)
    return datetime.date.fromisoformat(text)


def _uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _uuid(version: int | None) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            found = uuid.UUID(text)
        except ValueError:
            return False
        return len(text) in (32, 36) and (version is None or found.version == version)

    return check


def _rgb(text: str) -> bool:
    found = _RGB(text)
    return found is not None and all(int(part) <= 255 for part in found.groups())


FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": lambda text: re.fullmatch(r"[0-9a-fA-F]{24}", text) is not None,
    "uri": _uri,
    "email": lambda text: _EMAIL(text) is not None,
    "hostname": lambda text: not names.dns_subdomain(text.lower()),
    "ipv4": parses(ipaddress.IPv4Address),
    "ipv6": parses(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and parses(lambda one: ipaddress.ip_network(one, strict=False))(text),
    "mac": lambda text: _MAC(text) is not None,
    "uuid": _uuid(None),
    "uuid3": _uuid(3),
    "uuid4": _uuid(4),
    "uuid5": _uuid(5),
    "isbn": lambda text: _ISBN(text.replace("-", "").replace(" ", "")) is not None,
    "isbn10": lambda text: len(text.replace("-", "")) == 10 and _ISBN(text.replace("-", "")) is not None,
    "isbn13": lambda text: len(text.replace("-", "")) == 13 and _ISBN(text.replace("-", "")) is not None,
    "creditcard": lambda text: _CARD(text.replace("-", "").replace(" ", "")) is not None,
    "ssn": lambda text: _SSN(text) is not None,
    "hexcolor": lambda text: _HEX_COLOR(text) is not None,
    "rgbcolor": _rgb,
    "byte": lambda text: _BASE64(text) is not None,
    "date": parses(_date),
    "duration": parses(parse_duration),
    "date-time": parses(parse_date_time),
    "datetime": parses(parse_date_time),
    "k8s-short-name": lambda text: not names.dns_label(text),
    "k8s-long-name": lambda text: not names.dns_subdomain(text),
}

"""Syntax of names: DNS labels and subdomains, qualified names, label values, environment names, ports. Worded as
upstream words it.

A check returns what is wrong with a value, an empty tuple if nothing. `*_PATTERN` are the same rules as regular
expressions for the compiled validators (`structure`); the functions are what says why.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL_PATTERN = f"^{DNS_LABEL}$"
DNS_SUBDOMAIN_PATTERN = rf"^{DNS_LABEL}(\.{DNS_LABEL})*$"
DNS_1035_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
QUALIFIED_PATTERN = rf"^({DNS_LABEL}(\.{DNS_LABEL})*/)?([A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?)$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
CONFIG_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"

_label = re.compile(DNS_LABEL + r"\Z").match
_subdomain = re.compile(rf"{DNS_LABEL}(\.{DNS_LABEL})*\Z").match
_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z").match
_qualified = re.compile(_QUALIFIED + r"\Z").match
_label_value = re.compile(rf"({_QUALIFIED})?\Z").match
_config_key = re.compile(r"[-._a-zA-Z0-9]+\Z").match
_env_name = re.compile(r"[ -<>-~]+\Z").match
_port_name = re.compile(r"[-a-z0-9]+\Z").match
_http_header = re.compile(r"[-A-Za-z0-9]+\Z").match
_path_segment_bad = re.compile(r"%|/")

Check = Callable[[str], tuple[str, ...]]


def too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def dns_label(value: str) -> tuple[str, ...]:
    """RFC 1123 label."""
    problems: tuple[str, ...] = ()
    if len(value) > 63:
        problems = (too_long(63),)
    if not _label(value):
        problems += (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
            "start and end with "
            "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        )
    return problems


def dns_subdomain(value: str) -> tuple[str, ...]:
    """RFC 1123 subdomain."""
    problems: tuple[str, ...] = ()
    if len(value) > 253:
        problems = (too_long(253),)
    if not _subdomain(value):
        problems += (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
            "must start and "
            "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        )
    return problems


def dns_1035_label(value: str) -> tuple[str, ...]:
    """RFC 1035 label, which can't start with a digit: names of custom resources and their versions."""
    problems: tuple[str, ...] = ()
    if len(value) > 63:
        problems = (too_long(63),)
    if not _1035(value):
        problems += (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
            "alphabetic character, and "
            "end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
            "'[a-z]([-a-z0-9]*[a-z0-9])?')",
        )
    return problems


def path_segment(value: str) -> tuple[str, ...]:
    """What can stand between two slashes of a URL: RBAC names and others that are freer than DNS."""
    if value in (".", ".."):
        return (f"may not be '{value}'",)
    return tuple(f"may not contain '{bad}'" for bad in ("/", "%") if bad in value)


def ip_address(value: str) -> tuple[str, ...]:
    """An address in its canonical form: the name of an IPAddress object."""
    try:
        canonical = str(ipaddress.ip_address(value))
    except ValueError:
        return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",)
    return () if canonical == value else (f'must be in canonical form ("{canonical}")',)


def qualified_name(value: str) -> tuple[str, ...]:
    """`[prefix/]name`: label and annotation keys, resource names, taint keys."""
    prefix, slash, name = value.rpartition("/")
    syntax = (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character "
        "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    )
    if "/" in prefix:
        return (
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
            "with an alphanumeric "
            "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
            "'example.com/MyName')",
        )
    problems: list[str] = []
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {problem}" for problem in dns_subdomain(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _qualified(name):
        problems.append(syntax)
    return tuple(problems)


def label_value(value: str) -> tuple[str, ...]:
    """A label's value: at most 63 characters, may be empty."""
    problems: tuple[str, ...] = ()
    if len(value) > 63:
        problems = (too_long(63),)
    if not _label_value(value):
        problems += (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end "
            "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        )
    return problems


def config_key(value: str) -> tuple[str, ...]:
    """A key of a ConfigMap or Secret: a file name that stays in its folder."""
    problems: list[str] = []
    if len(value) > 253:
        problems.append(too_long(253))
    if not _config_key(value):
        problems.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or "
            "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    elif value == ".":
        problems.append("must not be '.'")
    elif value == "..":
        problems.append("must not be '..'")
    elif value.startswith(".."):
        problems.append("must not start with '..'")
    return tuple(problems)


def env_name(value: str) -> tuple[str, ...]:
    """An environment variable's name: printable ASCII without '='."""
    if _env_name(value):
        return ()
    return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)


def port_name(value: str) -> tuple[str, ...]:
    """An IANA service name: the name of a container's port."""
    problems: list[str] = []
    if len(value) > 15:
        problems.append("must be no more than 15 characters")
    if not _port_name(value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return tuple(problems)


def http_header_name(value: str) -> tuple[str, ...]:
    """An HTTP header's name."""
    if _http_header(value):
        return ()
    return (
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used "
        "for validation is "
        "'[-A-Za-z0-9]+')",
    )


def wildcard_subdomain(value: str) -> tuple[str, ...]:
    """`*.example.com`."""
    if value.startswith("*.") and _subdomain(value[2:]):
        return ()
    return (
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
        "consist of lower case "
        "alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex "
        "used for "
        r"validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )

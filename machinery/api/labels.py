"""What may be a label, an annotation key or a name: the rules of k8s.io/apimachinery/pkg/util/validation.

Each `check_*` answers None, or a sentence that says what is wrong; each `is_valid_*` answers a bool.
"""

from __future__ import annotations

import re

LABEL_VALUE_LENGTH_MAX = 63
QUALIFIED_NAME_LENGTH_MAX = 63
DNS_LABEL_LENGTH_MAX = 63
DNS_SUBDOMAIN_LENGTH_MAX = 253

_QUALIFIED_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)

_QUALIFIED_NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_NAME_EXAMPLES = (
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_EXAMPLES = (
    "(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def check_dns_label(name: str) -> str | None:
    """RFC 1123 label: namespaces, containers, ports of endpoints."""
    if len(name) > DNS_LABEL_LENGTH_MAX:
        return f"must be no more than {DNS_LABEL_LENGTH_MAX} characters"
    if not _DNS_LABEL.fullmatch(name):
        return (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
            "and must start and end with an alphanumeric character"
        )
    return None


def check_dns_1035_label(name: str) -> str | None:
    """RFC 1035 label: names of Services."""
    if len(name) > DNS_LABEL_LENGTH_MAX:
        return f"must be no more than {DNS_LABEL_LENGTH_MAX} characters"
    if not _DNS_1035_LABEL.fullmatch(name):
        return (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
    return None


def check_dns_subdomain(name: str) -> str | None:
    """RFC 1123 subdomain: names of most objects, prefixes of label keys."""
    if len(name) > DNS_SUBDOMAIN_LENGTH_MAX:
        return f"must be no more than {DNS_SUBDOMAIN_LENGTH_MAX} characters"
    if not _DNS_SUBDOMAIN.fullmatch(name):
        return (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
    return None


def check_path_segment(name: str) -> str | None:
    """The least that any name must satisfy: RBAC's names, for one, may hold colons."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    found = next((char for char in "/%" if char in name), None)
    return f"may not contain '{found}'" if found else None


def check_label_key(key: str) -> str | None:
    """A qualified name: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    if slash:
        if not prefix:
            return "prefix part must be non-empty"
        if "/" in prefix:
            return (
                "a qualified name must consist of a name and an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')"
            )
        problem = check_dns_subdomain(prefix)
        if problem:
            return f"prefix part {problem}"
    if not name:
        return "name part must be non-empty"
    if len(name) > QUALIFIED_NAME_LENGTH_MAX:
        return f"name part must be no more than {QUALIFIED_NAME_LENGTH_MAX} bytes"
    return None if _QUALIFIED_NAME.fullmatch(name) else f"name part {_QUALIFIED_NAME_RULE} {_NAME_EXAMPLES}"


def check_label_value(value: str) -> str | None:
    """Up to 63 characters, possibly none."""
    if len(value) > LABEL_VALUE_LENGTH_MAX:
        return f"must be no more than {LABEL_VALUE_LENGTH_MAX} bytes"
    if value and not _QUALIFIED_NAME.fullmatch(value):
        rule = _QUALIFIED_NAME_RULE.removeprefix("must ")
        return f"a valid label must be an empty string or {rule} {_VALUE_EXAMPLES}"
    return None


def is_valid_label_key(key: str) -> bool:
    """Whether `key` may be a label's or annotation's key."""
    return check_label_key(key) is None


def is_valid_label_value(value: str) -> bool:
    """Whether `value` may be a label's value."""
    return check_label_value(value) is None


def is_valid_dns_label(name: str) -> bool:
    """Whether `name` is an RFC 1123 label."""
    return check_dns_label(name) is None


def is_valid_dns_subdomain(name: str) -> bool:
    """Whether `name` is an RFC 1123 subdomain."""
    return check_dns_subdomain(name) is None

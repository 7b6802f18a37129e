"""Kubernetes' CEL function libraries (k8s.io/apiserver/pkg/cel/library): lists, sets, regex, url, ip, cidr, quantity,
semver.

Values of Kubernetes' own types are maps here, `{"quantity": …}`, because a function of ours can only return plain
values; their fields are normalised, so that `==` means what it should. `string(ip)` and the optional that `format`'s
validate gives can't be expressed this way and are not there.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from machinery.api.parsing import parses
from machinery.api.quantity import NANO, Quantity, parse_quantity
from machinery.cel.sizes import ITERATIONS_MAX

Value = Any
_REGEX_SUBJECT_MAX = 1024 * 1024


def _plain(value: Value) -> Value:
    """An item of a list argument as a plain value."""
    return value.plain_value() if hasattr(value, "plain_value") else value


def _plains(values: list[Value]) -> list[Value]:
    return [_plain(value) for value in values]


# Lists.


def _is_sorted(values: list[Value]) -> bool:
    items = _plains(values)
    return all(left <= right for left, right in itertools.pairwise(items))


def _extreme(pick: Callable[[list[Value]], Value], name: str) -> Callable[[list[Value]], Value]:
    def extreme(values: list[Value]) -> Value:
        if not values:
            raise ValueError(f"{name} called on empty list")
        return pick(_plains(values))

    return extreme


ITEMS_MAX = ITERATIONS_MAX
"""How many items `lists.range` makes at most: as many as loops may go round."""


def _slice(values: list[Value], first: int, end: int) -> list[Value]:
    if first < 0 or end < 0:
        raise ValueError(f"cannot slice({first}, {end}), negative indexes not supported")
    if first > end:
        raise ValueError(f"cannot slice({first}, {end}), start index must be less than or equal to end index")
    if end > len(values):
        raise ValueError(f"cannot slice({first}, {end}), list is length {len(values)}")
    return _plains(values)[first:end]


def _flatten(values: list[Value], depth: int = 1) -> list[Value]:
    if depth < 0:
        raise ValueError("level must be non-negative")
    out: list[Value] = []
    for one in _plains(values):
        out.extend(_flatten(one, depth - 1) if isinstance(one, list) and depth else [one])
    return out


def _distinct(values: list[Value]) -> list[Value]:
    out: list[Value] = []
    for one in _plains(values):
        if one not in out:
            out.append(one)
    return out


def _range(count: int) -> list[Value]:
    if count > ITEMS_MAX:
        raise ValueError(f"lists.range({count}): no more than {ITEMS_MAX} items")
    return list(range(count))


def _sorted(values: list[Value]) -> list[Value]:
    items = _plains(values)
    if len({type(one) for one in items}) > 1:
        raise ValueError("list elements must have the same type")
    return sorted(items)


# Sets.


def _contains(left: list[Value], right: list[Value]) -> bool:
    have = _plains(left)
    return all(item in have for item in _plains(right))


def _equivalent(left: list[Value], right: list[Value]) -> bool:
    return _contains(left, right) and _contains(right, left)


def _intersects(left: list[Value], right: list[Value]) -> bool:
    have = _plains(left)
    return any(item in have for item in _plains(right))


# Regular expressions.


@functools.lru_cache(maxsize=256)
def _regex(pattern: str) -> Any:
    """By the engine that judges `matches` too: time grows with the text, whatever the pattern."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise ValueError(f"Illegal regex: {why}") from error


def _find(text: str, pattern: str) -> str:
    found = _regex(pattern).search(text[:_REGEX_SUBJECT_MAX])
    return found[0] if found else ""


def _escape_key(key: str) -> str:
    """A key as one step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    out: list[str] = []
    for found in _regex(pattern).finditer(text[:_REGEX_SUBJECT_MAX]):
        if 0 <= limit <= len(out):
            break
        out.append(found[0])
    return out


# URLs.


def _url(text: str) -> dict[str, Value]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from error
    if not (parts.scheme or text.startswith("/")):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return {
        "url": text,
        "scheme": parts.scheme,
        "host": parts.netloc.rpartition("@")[2],
        "hostname": parts.hostname or "",
        "port": str(port) if port is not None else "",
        "path": quote(parts.path, safe="/:@!$&'()*+,;=-._~%"),
        "query": parse_qs(parts.query, keep_blank_values=True),
    }


def _field(kind: str, name: str) -> Callable[[dict[str, Value]], Value]:
    def read(value: dict[str, Value]) -> Value:
        if kind not in value:
            raise ValueError(f"no such overload: expected a {kind}")
        return _plain(value[name])

    return read


# Addresses.


def _ip(text: str) -> dict[str, Value]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"IP Address {text!r} parse error during conversion from string") from error
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"IPv4-mapped IPv6 address {text!r} and zones are not allowed")
    return {"ip": str(address), "family": address.version}


def _address(value: dict[str, Value]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(_field("ip", "ip")(value)))


def _cidr(text: str) -> dict[str, Value]:
    address, slash, length = text.partition("/")
    if not slash:
        raise ValueError(f"network address parse error during conversion from string: {text!r}")
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError as error:
        raise ValueError(f"network address parse error during conversion from string: {error}") from error
    return {"cidr": str(interface), "address": str(ipaddress.ip_address(address)), "length": int(length)}


def _ip_of_cidr(block: dict[str, Value]) -> dict[str, Value]:
    return _ip(str(_field("cidr", "address")(block)))


def _network(value: dict[str, Value]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_interface(str(_field("cidr", "cidr")(value))).network


def _contains_ip(block: dict[str, Value], address: Value) -> bool:
    ip = _address(address) if isinstance(address, dict) else ipaddress.ip_address(str(address))
    return ip in _network(block)


def _contains_cidr(block: dict[str, Value], other: Value) -> bool:
    inner = _network(other if isinstance(other, dict) else _cidr(str(other)))
    outer = _network(block)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _masked(block: dict[str, Value]) -> dict[str, Value]:
    return _cidr(str(_network(block)))


# Quantities and versions: both are compared by the same names.

_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\Z"
)


def _quantity(text: str) -> dict[str, Value]:
    return _wrapped(parse_quantity(text))


def _wrapped(amount: Quantity) -> dict[str, Value]:
    # As text, because a count of billionths may not fit CEL's integers.
    return {"quantity": str(amount.nano)}


def _amount(value: dict[str, Value]) -> int:
    return int(_field("quantity", "quantity")(value))


def _semver(text: str, normalize: bool = False) -> dict[str, Value]:
    if normalize:
        text = text.removeprefix("v")
        head, dash, tail = text.partition("-")
        parts = [part.lstrip("0") or "0" for part in head.split(".")]
        text = ".".join([*parts, "0", "0"][:3]) + dash + tail
    found = _SEMVER.match(text)
    if found is None:
        raise ValueError(f"invalid semver {text!r}")
    return {
        "semver": text.partition("+")[0],
        "major": int(found[1]),
        "minor": int(found[2]),
        "patch": int(found[3]),
    }


def _is_semver(text: str, normalize: bool = False) -> bool:
    return parses(lambda one: _semver(one, normalize))(text)


def _order(value: dict[str, Value]) -> Any:
    """What a quantity or a version is ordered by."""
    if "quantity" in value:
        return (0, _amount(value))
    if "semver" not in value:
        raise ValueError("no such overload: expected a quantity or a semver")
    text = str(_plain(value["semver"]))
    core, dash, pre = text.partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    # A release comes after its pre-releases; numeric identifiers before alphabetic ones.
    rank = tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in pre.split(".")) if dash else ()
    return (1, numbers, not dash, rank)


def _compare(left: dict[str, Value], right: dict[str, Value]) -> int:
    ours, theirs = _order(left), _order(right)
    return int(ours > theirs) - int(ours < theirs)


def _add(sign: int) -> Callable[[dict[str, Value], Value], dict[str, Value]]:
    def add(left: dict[str, Value], right: Value) -> dict[str, Value]:
        other = _amount(right) if isinstance(right, dict) else int(right) * NANO
        return _wrapped(Quantity(_amount(left) + sign * other))

    return add


def _as_integer(value: dict[str, Value]) -> int:
    amount = _amount(value)
    if amount % NANO:
        raise ValueError("cannot convert value to integer")
    return int(amount // NANO)


def declarations() -> list[Any]:
    """Every function, as the CEL environment takes them."""
    from cel_expr_python import cel

    kind = cel.Type
    text, whole, yes, anything = kind.STRING, kind.INT, kind.BOOL, kind.DYN
    items, opaque, texts = kind("list<dyn>"), kind("map<string,dyn>"), kind("list<string>")

    def function(name: str, *overloads: tuple[Any, list[Any], Callable[..., Value]], member: bool = True) -> Any:
        made = [
            cel.Overload(f"k8s_{name}_{index}", return_type=out, parameters=parameters, is_member=member, impl=impl)
            for index, (out, parameters, impl) in enumerate(overloads)
        ]
        return cel.FunctionDecl(name, made)

    plain = functools.partial(function, member=False)
    lists = [
        function("isSorted", (yes, [items], _is_sorted)),
        function("sum", (anything, [items], lambda values: sum(_plains(values)))),
        function("min", (anything, [items], _extreme(min, "min"))),
        function("max", (anything, [items], _extreme(max, "max"))),
        function("slice", (items, [items, whole, whole], _slice)),
        function("flatten", (items, [items], _flatten), (items, [items, whole], _flatten)),
        function("distinct", (items, [items], _distinct)),
        function("sort", (items, [items], _sorted)),
        plain("lists.range", (items, [whole], _range)),
        plain("sets.contains", (yes, [items, items], _contains)),
        plain("sets.equivalent", (yes, [items, items], _equivalent)),
        plain("sets.intersects", (yes, [items, items], _intersects)),
    ]
    strings = [
        plain("jsonpatch.escapeKey", (text, [text], _escape_key)),
        function("find", (text, [text, text], _find)),
        function("findAll", (texts, [text, text], _find_all), (texts, [text, text, whole], _find_all)),
    ]
    urls = [
        plain("url", (opaque, [text], _url)),
        plain("isURL", (yes, [text], parses(_url))),
        *(
            function(f"get{name}", (text, [opaque], _field("url", key)))
            for name, key in (
                ("Scheme", "scheme"), ("Host", "host"), ("Hostname", "hostname"), ("Port", "port"),
                ("EscapedPath", "path"),
            )
        ),
        function("getQuery", (kind("map<string,list<string>>"), [opaque], _field("url", "query"))),
    ]  # fmt: skip
    addresses = [
        cel.FunctionDecl(
            "ip",
            [
                cel.Overload("k8s_ip_0", return_type=opaque, parameters=[text], is_member=False, impl=_ip),
                cel.Overload("k8s_ip_1", return_type=opaque, parameters=[opaque], is_member=True, impl=_ip_of_cidr),
            ],
        ),
        plain("isIP", (yes, [text], parses(_ip))),
        plain("ip.isCanonical", (yes, [text], lambda one: _ip(one)["ip"] == one)),
        function("family", (whole, [opaque], _field("ip", "family"))),
        function("isUnspecified", (yes, [opaque], lambda one: _address(one).is_unspecified)),
        function("isLoopback", (yes, [opaque], lambda one: _address(one).is_loopback)),
        function("isLinkLocalUnicast", (yes, [opaque], lambda one: _address(one).is_link_local)),
        function("isLinkLocalMulticast", (yes, [opaque], _link_local_multicast)),
        function("isGlobalUnicast", (yes, [opaque], _global_unicast)),
        plain("cidr", (opaque, [text], _cidr)),
        plain("isCIDR", (yes, [text], parses(_cidr))),
        function("containsIP", (yes, [opaque, opaque], _contains_ip), (yes, [opaque, text], _contains_ip)),
        function("containsCIDR", (yes, [opaque, opaque], _contains_cidr), (yes, [opaque, text], _contains_cidr)),
        function("masked", (opaque, [opaque], _masked)),
        function("prefixLength", (whole, [opaque], _field("cidr", "length"))),
    ]
    numbers = [
        plain("quantity", (opaque, [text], _quantity)),
        plain("isQuantity", (yes, [text], parses(_quantity))),
        function("sign", (whole, [opaque], lambda one: (_amount(one) > 0) - (_amount(one) < 0))),
        function("isInteger", (yes, [opaque], lambda one: _amount(one) % NANO == 0)),
        function("asInteger", (whole, [opaque], _as_integer)),
        function("asApproximateFloat", (kind.DOUBLE, [opaque], lambda one: _amount(one) / NANO)),
        function("add", (opaque, [opaque, opaque], _add(1)), (opaque, [opaque, whole], _add(1))),
        function("sub", (opaque, [opaque, opaque], _add(-1)), (opaque, [opaque, whole], _add(-1))),
        function("compareTo", (whole, [opaque, opaque], _compare)),
        function("isGreaterThan", (yes, [opaque, opaque], lambda left, right: _compare(left, right) > 0)),
        function("isLessThan", (yes, [opaque, opaque], lambda left, right: _compare(left, right) < 0)),
        plain("semver", (opaque, [text], _semver), (opaque, [text, yes], _semver)),
        plain("isSemver", (yes, [text], _is_semver), (yes, [text, yes], _is_semver)),
        *(function(name, (whole, [opaque], _field("semver", name))) for name in ("major", "minor", "patch")),
    ]
    return lists + strings + urls + addresses + numbers


def _link_local_multicast(value: dict[str, Value]) -> bool:
    address = _address(value)
    block = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    return address in ipaddress.ip_network(block)


def _global_unicast(value: dict[str, Value]) -> bool:
    address = _address(value)
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not special and str(address) != "255.255.255.255"

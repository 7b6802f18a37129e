"""IP families of Services in a cluster whose Services have addresses of one family: what is asked for is judged, what
is left out is filled in.

Upstream's rules, as they come out where one family is configured: pkg/registry/core/service/storage/alloc.go
(initIPFamilyFields), and ValidateServiceClusterIPsRelatedFields of pkg/apis/core/validation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes

HEADLESS = "None"
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_OTHER = {"IPv4": "IPv6", "IPv6": "IPv4"}
_FAMILIES, _POLICY, _ADDRESSES = "spec.ipFamilies", "spec.ipFamilyPolicy", "spec.clusterIPs"


def settle(spec: dict[str, Any], old: Mapping[str, Any], configured: str) -> list[Cause]:
    """Fill `ipFamilies` and `ipFamilyPolicy` of a Service that is no alias; what is wrong with them and with the
    families of `clusterIPs`. `old` is the spec before, empty on creation; `configured` the cluster's family."""
    given = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else ()))
    families = list(spec.get("ipFamilies") or ())
    is_headless = given[:1] == [HEADLESS]
    is_open = is_headless and not spec.get("selector")
    # Nobody knows the families of endpoints that the user manages.
    policy = spec.setdefault("ipFamilyPolicy", REQUIRE if is_open else SINGLE)
    if _is_kept(spec, old, given, families):
        return []
    wrong = _addresses(given, families)
    if wrong:
        return wrong
    if policy == SINGLE:
        # To ask for one family is to let the second one go, if it was not changed as well.
        if old and families == list(old.get("ipFamilies") or ()):
            families = families[:1]
        wrong += _single(policy, given, families)
    elif 0 < len(families) < len(old.get("ipFamilies") or ()):
        wrong.append(causes.invalid(_POLICY, policy, f"must be '{SINGLE}' to release the secondary IP family"))
    if not is_headless:
        for index, address in enumerate(given[len(families) :], len(families)):
            if _family(address) != configured:
                wrong.append(
                    causes.invalid(
                        f"{_ADDRESSES}[{index}]", given, f"{_family(address)} is not configured on this cluster"
                    )
                )
    if not wrong and not is_open:
        if policy == REQUIRE:
            wrong.append(causes.invalid(_POLICY, policy, "this cluster is not configured for dual-stack services"))
        wrong += [
            causes.invalid(f"{_FAMILIES}[{index}]", family, "not configured on this cluster")
            for index, family in enumerate(families)
            if family != configured
        ]
    if not wrong:
        families = families or [configured]
        if is_open and policy != SINGLE and len(families) == 1:
            families.append(_OTHER[families[0]])
        spec["ipFamilies"] = families
    return wrong


def _is_kept(spec: Mapping[str, Any], old: Mapping[str, Any], given: list[str], families: list[str]) -> bool:
    """Whether an update leaves all of it as it was where two families are welcome and not needed: it stays."""
    return (
        bool(old)
        and spec["ipFamilyPolicy"] == old.get("ipFamilyPolicy") == PREFER
        and spec.get("type") == old.get("type")
        and given == list(old.get("clusterIPs") or ())
        and families == list(old.get("ipFamilies") or ())
    )


def _addresses(given: list[str], families: list[str]) -> list[Cause]:
    if given[:1] == [HEADLESS]:
        return [causes.invalid(_ADDRESSES, given, "'None' must be the first and only value")] if len(given) > 1 else []
    if len(given) > 2:
        return [causes.invalid(_ADDRESSES, given, "may only hold up to 2 values")]
    if len(given) == 2 and _family(given[0]) == _family(given[1]):
        return [causes.invalid(_ADDRESSES, given, "may specify no more than one IP for each IP family")]
    return [
        causes.invalid(
            f"{_ADDRESSES}[{index}]", address, f"expected an {family} value as indicated by `ipFamilies[{index}]`"
        )
        for index, (address, family) in enumerate(zip(given, families, strict=False))
        if _family(address) != family
    ]


def _single(policy: str, given: list[str], families: list[str]) -> list[Cause]:
    return [
        causes.invalid(_POLICY, policy, f"must be '{REQUIRE}' or '{PREFER}' when multiple {what} are specified")
        for what, some in (("cluster IPs", given), ("IP families", families))
        if len(some) == 2
    ]


def _family(address: str) -> str:
    """Of an address that was found valid before."""
    return f"IPv{ipaddress.ip_address(address).version}"

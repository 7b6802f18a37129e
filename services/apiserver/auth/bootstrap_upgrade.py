"""What a role or binding that a new version starts with has and a stored one lacks. Pure.

A cluster that comes from an earlier version gets the rights that its components need now; what somebody added stays,
and nothing is ever taken away. Who sets the annotation to "false" keeps the object as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"

Rule = Mapping[str, Any]


def additions(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch; empty: nothing lacks."""
    metadata = present.get("metadata") or {}
    if (metadata.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return {}
    patch: dict[str, Any] = {}
    for field in ("labels", "annotations"):
        lacking = {
            key: value
            for key, value in (wanted["metadata"].get(field) or {}).items()
            if key not in (metadata.get(field) or {})
        }
        if lacking:
            patch.setdefault("metadata", {})[field] = lacking
    # The rules of an aggregated role are gathered by its controller.
    if not wanted.get("aggregationRule"):
        rules = present.get("rules") or []
        missing = [rule for rule in wanted.get("rules") or () if rule not in rules and not _covered(rule, rules)]
        if missing:
            patch["rules"] = [*rules, *missing]
    subjects = present.get("subjects") or []
    strangers = [subject for subject in wanted.get("subjects") or () if subject not in subjects]
    if strangers:
        patch["subjects"] = [*subjects, *strangers]
    return patch


def _covered(rule: Rule, by: Iterable[Rule]) -> bool:
    """Whether the rules together allow all that this one allows."""
    allowed = list(by)
    return all(any(_allows(each, one) for each in allowed) for one in _simple(rule))


def _simple(rule: Rule) -> Iterable[Rule]:
    """The rule as rules of one verb on one thing."""
    if rule.get("nonResourceURLs"):
        for verb, url in itertools.product(rule["verbs"], rule["nonResourceURLs"]):
            yield {"verbs": [verb], "nonResourceURLs": [url]}
        return
    things = itertools.product(rule["verbs"], rule.get("apiGroups") or (), rule.get("resources") or ())
    for verb, group, resource in things:
        for name in rule.get("resourceNames") or (None,):
            names = {"resourceNames": [name]} if name is not None else {}
            yield {"verbs": [verb], "apiGroups": [group], "resources": [resource], **names}


def _allows(rule: Rule, one: Rule) -> bool:
    def has(field: str) -> bool:
        given = rule.get(field) or ()
        return "*" in given or all(each in given for each in one[field])

    if "nonResourceURLs" in one:
        (url,) = one["nonResourceURLs"]
        urls = rule.get("nonResourceURLs") or ()
        return has("verbs") and any(u == url or (u.endswith("*") and url.startswith(u[:-1])) for u in urls)
    names = rule.get("resourceNames") or ()
    named = not names or (bool(one.get("resourceNames")) and one["resourceNames"][0] in names)
    return named and has("verbs") and has("apiGroups") and has("resources")

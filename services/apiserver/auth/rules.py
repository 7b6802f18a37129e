"""RBAC rules compiled for quick answers, and what it means for one set of rules to cover another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Rule = Mapping[str, Any]

# verb -> API group -> resource[/subresource] -> the names it is limited to, or None for all.
_Names = set[str] | None


class RuleSet:
    """Policy rules as nested dictionaries: a question costs a few look-ups, however many rules there are.

    Wildcards are kept as the key `*`; a question asks for the word and for `*` at each level.
    """

    __slots__ = ("_by_verb", "_exact_urls", "_url_prefixes")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._by_verb: dict[str, dict[str, dict[str, _Names]]] = {}
        self._exact_urls: set[tuple[str, str]] = set()
        self._url_prefixes: list[tuple[str, str]] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        """Grant what `rule` (a PolicyRule as a dict) grants."""
        verbs = rule.get("verbs") or ()
        for verb in verbs:
            for url in rule.get("nonResourceURLs") or ():
                if url.endswith("*"):
                    self._url_prefixes.append((verb, url[:-1]))
                else:
                    self._exact_urls.add((verb, url))
        resources = rule.get("resources") or ()
        if not resources:
            return
        names = rule.get("resourceNames") or None
        for verb in verbs:
            groups = self._by_verb.setdefault(verb, {})
            for group in rule.get("apiGroups") or ():
                entries = groups.setdefault(group, {})
                for resource in resources:
                    self._grant(entries, resource, names)

    @staticmethod
    def _grant(entries: dict[str, _Names], resource: str, names: Iterable[str] | None) -> None:
        if names is None:
            entries[resource] = None
        elif resource not in entries:
            entries[resource] = set(names)
        else:
            known = entries[resource]
            if known is not None:
                known.update(names)

    def allows(self, verb: str, group: str, resource: str, subresource: str = "", name: str = "") -> bool:
        """Whether one of the rules grants this. An empty `name` is granted only by rules that name no resources."""
        by_verb = self._by_verb
        for granted_verb in (verb, "*"):
            groups = by_verb.get(granted_verb)
            if groups is None:
                continue
            for granted_group in (group, "*"):
                entries = groups.get(granted_group)
                if entries is not None and _resource_granted(entries, resource, subresource, name):
                    return True
        return False

    def allows_path(self, verb: str, path: str) -> bool:
        """Whether one of the rules grants `verb` on a path that is no resource."""
        for granted in (verb, "*"):
            if (granted, path) in self._exact_urls:
                return True
        return any(granted in (verb, "*") and path.startswith(prefix) for granted, prefix in self._url_prefixes)

    def covers(self, rule: Rule) -> list[dict[str, Any]]:
        """The smallest parts of `rule` that this set does not grant; empty if it covers the whole rule."""
        missing = []
        for part in atoms(rule):
            if "nonResourceURLs" in part:
                covered = self.allows_path(part["verbs"][0], part["nonResourceURLs"][0])
            else:
                resource, _, subresource = part["resources"][0].partition("/")
                name = (part.get("resourceNames") or ("",))[0]
                covered = self.allows(part["verbs"][0], part["apiGroups"][0], resource, subresource, name)
            if not covered:
                missing.append(part)
        return missing


def _resource_granted(entries: dict[str, _Names], resource: str, subresource: str, name: str) -> bool:
    # "*" grants every resource and subresource; "*/scale" the scale of every resource.
    wanted = (f"{resource}/{subresource}", f"*/{subresource}", "*") if subresource else (resource, "*")
    for key in wanted:
        if key in entries:
            names = entries[key]
            if names is None or (name and name in names):
                return True
    return False


def atoms(rule: Rule) -> Iterable[dict[str, Any]]:
    """`rule` as rules of one verb, one group, one resource and at most one name each."""
    for verb in rule.get("verbs") or ():
        for url in rule.get("nonResourceURLs") or ():
            yield {"verbs": [verb], "nonResourceURLs": [url]}
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                names = rule.get("resourceNames") or ()
                if not names:
                    yield {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
                for name in names:
                    yield {"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": [name]}

"""Random Ingresses, and which of them a request is for by the API's own words: an oracle that knows of no maps."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.ingress_objects import ingress, path

HOSTS = ("a.test", "b.a.test", "c.b.a.test", "*.a.test", "*.b.a.test", "")
PATHS = ("/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/A")
REQUEST_HOSTS = ("a.test", "b.a.test", "x.a.test", "c.b.a.test", "x.b.a.test", "z.test")
REQUEST_PATHS = ("/", "/a", "/a/", "/ab", "/abc", "/a/b", "/a/b/", "/a/bc", "/a/b/c/d", "/A", "/x")

_rule = st.tuples(
    st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from(("Exact", "Prefix", "ImplementationSpecific"))
)
rules = st.lists(_rule, max_size=8, unique=True)
requests = st.tuples(st.sampled_from(REQUEST_HOSTS), st.sampled_from(REQUEST_PATHS))


def ingresses(chosen):
    """One Ingress a rule, each with a Service of its own: s0, s1, …"""
    return [ingress(f"i{n}", host, [path(text, f"s{n}", kind=kind)]) for n, (host, text, kind) in enumerate(chosen)]


def _elements(text):
    return [part for part in text.split("/") if part]


def expected(chosen, host, text):
    """The Service that a request is for, None for none."""
    matches = []
    for number, (rule_host, rule_path, kind) in enumerate(chosen):
        if rule_host.startswith("*."):
            label, _, rest = host.partition(".")
            if not label or rest != rule_host[2:]:
                continue
        elif rule_host and rule_host != host:
            continue
        wanted, given = _elements(rule_path), _elements(text)
        if kind == "Exact" and rule_path != text:
            continue
        if kind != "Exact" and given[: len(wanted)] != wanted:
            continue
        host_rank = 0 if not rule_host else 1 if rule_host.startswith("*.") else 2
        # Host first, then Exact, then the longest; of equals the oldest.
        matches.append((-host_rank, kind != "Exact", -len(wanted), number))
    return f"s{min(matches)[-1]}" if matches else None

"""No field of any object reaches the proxy's configuration but through its grammar (CVE-2025-1974 and its like)."""

import datetime
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress import certificates, changes, grammar, render
from services.ingress.table import Certificate
from tests.support.ingress_objects import endpoints, ingress, path, service, table

SETTINGS = render.Settings(Path("/run/x"), ("10.0.0.1:80",), ("10.0.0.1:443",))
HOSTILE = [
    "a.test\n    http-request lua.evil", "a.test other", "a.test'", 'a.test"', "a.test;b", "a.test#",
    "%[env(HOME)]",
    "${HOME}", "a\\", "a\x00b", "/a\nbackend evil\n server s 1.2.3.4:80", "/a b", "/a\tb", "/é", "/%zz", "/$(id)",
    "*.*.test",
    "*", "-a.test", "A.test", "/{a}", "/a`id`", "a.test/x", "127.0.0.1:1 maint;show ssl cert", "]", "/x' '/y",
    "|(", "(?R)",
]  # fmt: skip
ANNOTATIONS = [
    "rewrite-target", "use-regex", "ssl-redirect", "force-ssl-redirect", "backend-protocol", "affinity",
    "session-cookie-name", "session-cookie-max-age", "proxy-body-size", "proxy-read-timeout", "proxy-send-timeout",
    "proxy-connect-timeout", "proxy-next-upstream", "proxy-next-upstream-tries",
    "whitelist-source-range", "configuration-snippet", "server-snippet", "auth-url",
    "auth-tls-match-cn", "mirror-target",
]  # fmt: skip


def files(built):
    """(the frame, every file)."""
    wanted = render.render(built, endpoints(built), SETTINGS, "PEM")
    return wanted.frame, render.files(wanted, changes.fresh(wanted).servers, SETTINGS)


DIRECTIVE = re.compile(
    r"(    (http-request (deny|return|redirect|set-path|replace-path)|timeout|cookie|dynamic-cookie-key) .*|"
    r"    server s\d+ .*|"
    r"backend [a-z0-9.-]+:[a-z0-9.-]+:\d+:[0-9a-f]{12}|)"
)


def assert_only_known_words(built):
    """Every line beyond the frame is one that we write, whole; every map has two words a line."""
    frame, made = files(built)
    config = made["haproxy.cfg"]
    seconds = max((b.options.read_seconds or 60 for b in built.backends.values()), default=60)
    has_regexes = any(route.is_regex and route.claimed for route in built.routes)
    assert frame == render.frame(SETTINGS, max(60, seconds), has_regexes=has_regexes), "nobody's words are in it"
    assert config.startswith(frame)
    for line in config[len(frame) :].splitlines():
        assert DIRECTIVE.fullmatch(line) or line.startswith("    timeout"), line
        assert line.count("'") % 2 == 0
    for name in (*(f"{m}.map" for m in render.MAPS), "regex.map"):
        for line in made[name].splitlines():
            assert len(line.split(" ")) == 2, line
            assert line.isascii()
            assert line.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["Exact", "Prefix", "ImplementationSpecific"])
@pytest.mark.parametrize("annotations", [{}, {"use-regex": "true", "rewrite-target": "/$1"}])
def test_a_hostile_host_or_path_is_refused_whole_or_means_only_itself(text, kind, annotations):
    built = table(
        ingress("h", host=text, paths=[path("/a")]),
        ingress("p", paths=[path(text, kind=kind)], annotations=annotations),
        ingress("t", host="t.test", tls=[{"hosts": [text], "secretName": text}]),
    )
    assert_only_known_words(built)
    assert any(problem.ingress == "d/h" for problem in built.problems) or grammar.host(text) is None


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_hostile_annotation_changes_nothing_and_is_told(name, text):
    built = table(ingress(annotations={name: text, **({"affinity": "cookie"} if "cookie" in name else {})}))
    assert_only_known_words(built)
    assert built.problems or (name == "rewrite-target" and grammar.rewrite_target(text) is None)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_of_services_and_ports_reach_nothing(text):
    hostile = service("web", ports=[{"name": text, "port": 80, "appProtocol": text}])
    assert_only_known_words(table(ingress(paths=[path("/a", text), path("/b", port=text)]), services=[hostile]))


@given(st.text(max_size=40))
def test_what_the_grammars_take_can_be_quoted_and_is_one_word(text):
    for check in (grammar.host, grammar.name, grammar.path, grammar.rewrite_target, grammar.cookie_name, grammar.regex):
        if check(text) is None:
            assert not re.search(r"[\s\x00-\x1f\"#]", text)
            assert text.isascii()
    if grammar.rewrite_target(text) is None or grammar.regex(text) is None:
        grammar.quoted(text)


@given(st.text(alphabet="ab/(|)*+?.[]{}^$\\:1,", max_size=24).map(lambda text: "/" + text))
def test_a_regular_expression_that_is_taken_compiles_and_stays_in_its_group(text):
    if grammar.regex(text) is None:
        wrapped = re.compile(f"^h(?:{text})")
        assert wrapped.match("other/a") is None


@pytest.mark.parametrize(
    "text",
    ["/(a+)+", "/(a|b)*", "/(a?b?)+", "/.*.*.*.*", "/(?=a)", "/(?i)a", r"/\1", "/(a", "/a)", "/a)|(b", "/[a", "/$*",
     "/a{1,900}", "a", "/(?P<n>a)", r"/\Qa", "/[[:alpha:]]", "/a b", "/(*VERB)"],
)  # fmt: skip
def test_regular_expressions_that_take_unbounded_time_or_mean_more_are_refused(text):
    assert grammar.regex(text)


@pytest.mark.parametrize(
    "text", ["/x(/|$)(.*)", "/v[0-9]+/(.*)", r"/a\.json$", "/(?:a|b)/c?", "/[^/]+/x", "/a{2,3}", r"/items/(\d+)/(.*)"]
)
def test_the_regular_expressions_that_people_write_are_taken(text):
    assert grammar.regex(text) is None


def test_quoting_refuses_what_would_end_the_word():
    for text in ("a'b", "a\nb", "é", "a\x7f"):
        with pytest.raises(ValueError, match="quoted"):
            grammar.quoted(text)


def encoded(text):
    import base64

    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("crt", "key", "wrong"),
    [
        ("garbage\nbackend evil", "garbage", r"data\[tls.crt\]: is not a PEM certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x", r"data\[tls.crt\]"),
        (None, "x", r"data\[tls.crt\]: is missing"),
        ("good", "garbage", r"data\[tls.key\]: is not an unencrypted PEM private key"),
        ("good", "other", r"data\[tls.key\]: does not belong to"),
    ],
)
def test_a_secret_with_garbage_is_refused_with_the_field(crt, key, wrong):
    made, other = (certificates.self_signed(datetime.datetime.now(datetime.UTC)).pem for _ in range(2))
    texts = {"good": made, "other": other[other.index("-----BEGIN PRIVATE") :]}
    data = {"tls.key": encoded(texts.get(key, key))}
    if crt is not None:
        data["tls.crt"] = encoded(texts.get(crt, crt))
    with pytest.raises(certificates.BadCertificate, match=wrong):
        certificates.from_secret(certificates.TLS_TYPE, data)


def test_what_surrounds_a_certificate_is_left_out():
    made = certificates.self_signed(datetime.datetime.now(datetime.UTC)).pem
    split = made.index("-----BEGIN PRIVATE")
    data = {"tls.crt": encoded(f"junk\n\nshow info\n{made[:split]}\n\n"), "tls.key": encoded(f"{made[split:]}\n\ntail")}
    found = certificates.from_secret(certificates.TLS_TYPE, data)
    assert isinstance(found, Certificate)
    assert "junk" not in found.pem
    assert "tail" not in found.pem
    assert "\n\n" not in found.pem


def test_a_secret_of_another_type_is_refused():
    with pytest.raises(certificates.BadCertificate, match=r"kubernetes\.io/tls"):
        certificates.from_secret("Opaque", {})

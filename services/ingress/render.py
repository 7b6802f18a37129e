"""From the table to HAProxy's words: configuration, maps, certificates, list of SNI names. Pure.

The frontends never change: they look the route up in maps, whose values are backends' names.

    regex    "^host(?:/path…)"        in this order, for hosts that have any
    routes   "host/path/|"            Exact: the whole path
             "host/path/"             Prefix: the longest
    ... then both again for the host's "*.domain", and for no host
    default  "host", "*.domain", "*"  what no rule matches

Routes are looked up by the longest prefix of "host/path/|". With the slash, "/foo/" is one of "/foo/bar/|" and "/foo/|"
but not of "/foobar/|": element by element, as the API defines it. "|" is in no path, so that only a whole path reaches
it, and then it is the longest: one look-up finds either.

What an Ingress' annotations ask for is in its backend, so that a changed one touches nothing else.
Reference: HAProxy 2.6 Configuration Manual, sections 4.2 (keywords), 5.1 (crt-list) and 7.3.1 (converters).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.ingress.grammar import quoted
from services.ingress.table import Backend, Endpoint, Options, Route, Table

ROUTES, DEFAULT, REGEX_HOSTS = "routes", "default", "regex_hosts"
MAPS = (ROUTES, DEFAULT, REGEX_HOSTS)
WHOLE = "/|"
UNAVAILABLE = "unavailable"
NOT_FOUND = "not_found"
DEFAULT_CERTIFICATE = "default.pem"
READ_SECONDS = 60
CONNECT_SECONDS = 5
TUNNEL_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not come from the cluster."""

    # Folder of the configuration and the sockets.
    run: Path
    # "address:port", "*:port"
    http: tuple[str, ...]
    https: tuple[str, ...]
    # host:port of the proxy's own metrics, with the PEM file that it serves and the CA of who may ask; empty: none.
    metrics: str = ""
    metrics_pem: str = ""
    metrics_ca: str = ""
    # Whose rights the worker keeps; empty: ours.
    user: str = ""
    group: str = ""
    access_log: bool = True
    connections_max: int = 4000
    threads: int = 0
    # How long a former worker may go on with its connections after a reload.
    old_worker_seconds: int = 600


@dataclass(frozen=True)
class Wanted:
    """What the proxy should do."""

    # The configuration but for backends: global, defaults, frontends.
    frame: str
    # Backend's name -> its section without servers.
    sections: Mapping[str, str]
    # Backend's name -> what stands behind each of its servers.
    server_options: Mapping[str, str]
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    # Name of a map -> key -> value.
    maps: Mapping[str, Mapping[str, str]]
    # In the order in which they are tried: (pattern, backend).
    regexes: tuple[tuple[str, str], ...] = ()
    # File -> PEM.
    certificates: Mapping[str, str] = field(default_factory=dict)
    # File -> hosts.
    sni: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def render(
    table: Table, endpoints: Mapping[str, tuple[Endpoint, ...]], settings: Settings, default_certificate: str
) -> Wanted:
    """HAProxy's words for a table."""
    backends = table.backends
    longest_read = max((b.options.read_seconds or READ_SECONDS for b in backends.values()), default=READ_SECONDS)
    regexes = _regexes(table.routes)
    sni: dict[str, list[str]] = {}
    for host, secret in sorted(table.tls.items()):
        sni.setdefault(certificate_file(secret), []).append(host)
    return Wanted(
        frame(settings, max(READ_SECONDS, longest_read), has_regexes=bool(regexes)),
        {name: section(backend, settings) for name, backend in sorted(backends.items())},
        {name: server_options(backend.options) for name, backend in backends.items()},
        {name: endpoints.get(name, ()) for name in backends},
        _maps(table.routes),
        regexes,
        {DEFAULT_CERTIFICATE: default_certificate}
        | {certificate_file(secret): certificate.pem for secret, certificate in sorted(table.certificates.items())},
        {file: tuple(hosts) for file, hosts in sni.items()},
    )


def certificate_file(secret: str) -> str:
    """The file of a Secret's certificate: "_" is in no name of an object, so two never share one."""
    return f"{secret.replace('/', '_')}.pem"


# --- routes -----------------------------------------------------------------------------------------------------------


def _maps(routes: Iterable[Route]) -> dict[str, dict[str, str]]:
    maps: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for route in routes:
        if not route.claimed:
            continue
        target = route.backend.name if route.backend is not None else UNAVAILABLE
        if route.path_type == "Default":
            maps[DEFAULT][route.host or "*"] = target
        elif route.is_regex:
            maps[REGEX_HOSTS][route.host or "*"] = "yes"
        elif route.path_type == "Exact":
            maps[ROUTES][f"{route.host}{route.path}{WHOLE}"] = target
        else:
            maps[ROUTES][f"{route.host}{route.path.rstrip('/')}/"] = target
    return maps


def _regexes(routes: Iterable[Route]) -> tuple[tuple[str, str], ...]:
    """The longest first, as the more specific one; case does not matter, as with ingress-nginx."""
    found = [
        (f"^{re.escape(route.host)}(?i)(?:{route.path})", route.backend.name if route.backend else UNAVAILABLE)
        for route in sorted(routes, key=lambda route: -len(route.path))
        if route.claimed and route.is_regex
    ]
    return tuple(found)


# --- the frame --------------------------------------------------------------------------------------------------------

# What is logged of each request, as JSON; `json` escapes what clients send.
_LOG = (
    '{"log":"access","time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","client":"%ci","method":"%HM","host":"%[var(txn.asked),'
    'json(utf8s)]","uri":"%[capture.req.uri,json(utf8s)]","protocol":"%HV","tls":"%sslv","status":%ST,"bytes":%B,'
    '"backend":"%b","server":"%si:%sp","wait_ms":%Tw,"connect_ms":%Tc,"response_ms":%Tr,"total_ms":%Ta,"end":"%tsc"}'
)
# An element "..", plain or percent-encoded.
_DOT_DOT = r"(/|%2f)(\.|%2e)(\.|%2e)(/|%2f|$)"
_MISSING = "!{ var(txn.route) -m found }"


def frame(settings: Settings, client_seconds: int, *, has_regexes: bool = False) -> str:
    """Everything but the backends of Services."""
    run = settings.run
    lines = [
        "global",
        f"    stats socket {run}/admin.sock mode 600 level admin expose-fd listeners",
        f"    maxconn {settings.connections_max}",
        f"    hard-stop-after {settings.old_worker_seconds}s",
        "    ssl-default-bind-options ssl-min-ver TLSv1.2",
        "    tune.ssl.default-dh-param 2048",
        *([f"    nbthread {settings.threads}"] if settings.threads else []),
        *([f"    user {settings.user}", f"    group {settings.group}"] if settings.user else []),
        "",
        "defaults",
        "    mode http",
        "    timeout http-request 10s",
        # Also how long a former worker may still hold an idle client, whose next request it forwards by what it knew.
        "    timeout http-keep-alive 20s",
        f"    timeout client {client_seconds}s",
        # After a reload an idle client is told with its next answer to connect anew: closing would race its request.
        "    option idle-close-on-response",
        "    http-reuse safe",
        # An endpoint that does not take the connection, or an idle one that it had closed: another one is asked.
        "    retries 3",
        "    option redispatch 1",
        "    retry-on conn-failure empty-response",
        f"    timeout connect {CONNECT_SECONDS}s",
        f"    timeout server {READ_SECONDS}s",
        f"    timeout tunnel {TUNNEL_SECONDS}s",
        f"    timeout queue {CONNECT_SECONDS}s",
        "",
        *_frontend("http", settings, [f"bind {address}" for address in settings.http], has_regexes),
        *_frontend(
            "https",
            settings,
            [f"bind {address} ssl crt-list {run}/crt.list alpn h2,http/1.1" for address in settings.https],
            has_regexes,
        ),
        f"backend {NOT_FOUND}",
        "    http-request return status 404 content-type text/plain string 'no Ingress serves this host and path'",
        "",
        f"backend {UNAVAILABLE}",
        "    http-request return status 503 content-type text/plain string 'the backend of this Ingress is not there'",
        "",
    ]
    if settings.metrics:
        lines += [
            "frontend metrics",
            f"    bind {settings.metrics} ssl crt {settings.metrics_pem} ca-file {settings.metrics_ca} verify required",
            "    no log",
            "    http-request use-service prometheus-exporter if { path /metrics }",
            "    http-request return status 404",
            "",
        ]
    return "\n".join(lines)


def _frontend(scheme: str, settings: Settings, binds: list[str], has_regexes: bool) -> list[str]:
    """One for each scheme: what is the same for all of its requests need not be worked out for each."""
    if not binds:
        return []
    port = (settings.http if scheme == "http" else settings.https)[0].rpartition(":")[2]
    log = [
        # Here and not for the process: backends would tell of each reload.
        "log stdout len 8192 format raw local0",
        f"log-format {quoted(_LOG)}",
        "http-request set-var(txn.asked) req.hdr(host)",
    ]
    rules = [
        *binds,
        *(log if settings.access_log else []),
        # "Host: a.test/admin" must not become a host and a path.
        "http-request deny deny_status 400 if { req.hdr(host) -m sub / * }",
        # Nor may "/public/../admin" be forwarded as a path below /public: many servers would take it for /admin.
        f"http-request deny deny_status 400 if {{ path -m sub .. %2e %2E }} {{ path -m reg -i {quoted(_DOT_DOT)} }}",
        # What a client says about itself is not believed.
        "http-request set-header X-Forwarded-For %[src]",
        "http-request set-header X-Real-IP %[src]",
        "http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        f"http-request set-header X-Forwarded-Port {port}",
        f"http-request set-header X-Forwarded-Proto {scheme}",
        "http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE TRACE }",
        *_lookups(settings.run, has_regexes),
        "use_backend %[var(txn.route)]",
        f"default_backend {NOT_FOUND}",
    ]
    return [f"frontend {scheme}", *(f"    {rule}" for rule in rules), ""]


def _lookups(run: Path, has_regexes: bool) -> list[str]:
    """Set txn.route: for the host, for its wildcard, for any host; then the defaults in the same order."""

    def tier(base: str, host: str, condition: str = f" if {_MISSING}") -> list[str]:
        has_any = f"{{ {host},map_str({run}/{REGEX_HOSTS}.map) -m found }}"
        by_regex = f"http-request set-var(txn.route) {base},map_reg({run}/regex.map) if {_MISSING} {has_any}"
        by_prefix = f"http-request set-var(txn.route) {base},concat({WHOLE}),map_beg({run}/{ROUTES}.map)"
        return [by_regex, f"{by_prefix} if {_MISSING}"] if has_regexes else [f"{by_prefix}{condition}"]

    return [
        # Most requests name their host as it is, in lower case and without a port, and are done here. Another spelling
        # of it is no key of any map.
        *tier("base", "req.hdr(host)", ""),
        "http-request allow if { var(txn.route) -m found }",
        "http-request set-var(txn.host) req.hdr(host),host_only,lower,rtrim(.)",
        "http-request set-var(txn.path) path",
        "http-request set-var(txn.base) var(txn.host),concat(,txn.path)",
        *tier("var(txn.base)", "var(txn.host)"),
        # The first label, whatever it is: a wildcard stands for exactly one.
        "http-request set-var(txn.wild) var(txn.host),regsub(^[^.]*,*)",
        "http-request set-var(txn.base) var(txn.wild),concat(,txn.path)",
        *tier("var(txn.base)", "var(txn.wild)"),
        *tier("path", "str(*)"),
        *(
            f"http-request set-var(txn.route) {host},map_str({run}/{DEFAULT}.map) if {_MISSING}"
            for host in ("var(txn.host)", "var(txn.wild)", "str(*)")
        ),
    ]


# --- backends ---------------------------------------------------------------------------------------------------------


def section(backend: Backend, settings: Settings) -> str:
    """A backend without its servers."""
    options = backend.options
    lines = [f"backend {backend.name}"]
    if options.allow:
        lines.append(f"    http-request deny deny_status 403 unless {{ src {' '.join(options.allow)} }}")
    if options.redirect_to_tls:
        port = _tls_port(settings)
        where = quoted(f"https://%[req.hdr(host),host_only]{port}%[pathq]")
        lines.append(f"    http-request redirect location {where} code 308 unless {{ ssl_fc }}")
    if options.body_bytes_max is not None:
        if options.protocol in ("http", "https"):
            # A body of unsaid length can't be judged before it has been forwarded.
            lines.append(
                "    http-request return status 411 content-type text/plain string 'say the length of the body' "
                "if { req.hdr(transfer-encoding) -m found }"
            )
        lines.append(f"    http-request deny deny_status 413 if {{ req.body_size gt {options.body_bytes_max} }}")
    if options.connect_seconds:
        lines.append(f"    timeout connect {options.connect_seconds}s")
    if options.read_seconds or options.send_seconds:
        # One time-out covers both directions.
        seconds = options.read_seconds or max(READ_SECONDS, options.send_seconds or 0)
        lines += [f"    timeout server {seconds}s", f"    timeout tunnel {seconds}s"]
    if not options.resend:
        # The proxy keeps no copy of a request then. Where no connection came about nothing was sent.
        lines.append("    retry-on conn-failure")
    if options.tries is not None:
        lines.append(f"    retries {options.tries}")
    if options.affinity is not None:
        affinity = options.affinity
        age = f" attr Max-Age={affinity.max_age_seconds}" if affinity.max_age_seconds else ""
        lines += [
            f"    cookie {affinity.cookie} insert indirect nocache httponly attr SameSite=Lax{age} dynamic",
            # The cookie is a digest of address and key: the same on every node, and it moves with the endpoint.
            f"    dynamic-cookie-key {quoted(backend.name)}",
        ]
    if options.rewrite is not None:
        lines.append(_rewrite(options))
    return "\n".join(lines) + "\n"


def _tls_port(settings: Settings) -> str:
    ports = [address.rpartition(":")[2] for address in settings.https]
    return "" if not ports or "443" in ports else f":{ports[0]}"


def _rewrite(options: Options) -> str:
    assert options.rewrite is not None
    # In the proxy's format "%" begins a variable, and a captured group is a backslash and its number.
    target = options.rewrite.target.replace("%", "%%")
    if not options.rewrite.pattern:
        return f"    http-request set-path {quoted(target)}"
    target = re.sub(r"\$([1-9])", r"\\\1", target)
    return f"    http-request replace-path {quoted(f'^(?i)(?:{options.rewrite.pattern})')} {quoted(target)}"


def server_options(options: Options) -> str:
    """What stands behind each server of a backend. The certificates of endpoints are not verified, as nobody could sign
    them for addresses that come and go."""
    return {
        "http": "",
        "h2c": " proto h2",
        "grpc": " proto h2",
        "https": " ssl verify none alpn http/1.1 sni req.hdr(host),host_only",
        "grpcs": " ssl verify none alpn h2 sni req.hdr(host),host_only",
    }[options.protocol]


def files(wanted: Wanted, servers: Mapping[str, tuple[Endpoint | None, ...]], settings: Settings) -> dict[str, str]:
    """Every file that HAProxy reads at its start: relative name -> content."""
    run = settings.run
    found = {f"certs/{name}": pem for name, pem in wanted.certificates.items()}
    for name in MAPS:
        found[f"{name}.map"] = "".join(f"{key} {value}\n" for key, value in sorted(wanted.maps[name].items()))
    found["regex.map"] = "".join(f"{pattern} {backend}\n" for pattern, backend in wanted.regexes)
    lines = [f"{run}/certs/{DEFAULT_CERTIFICATE}"]
    lines += [f"{run}/certs/{file} {' '.join(hosts)}" for file, hosts in sorted(wanted.sni.items())]
    found["crt.list"] = "".join(f"{line}\n" for line in lines)
    sections = []
    for name, text in wanted.sections.items():
        options = wanted.server_options[name]
        slots = "".join(
            f"    server s{number} {_server(endpoint)}{options}\n" for number, endpoint in enumerate(servers[name], 1)
        )
        sections.append(f"{text}{slots}")
    found["haproxy.cfg"] = wanted.frame + "\n" + "\n".join(sections)
    return found


def _server(endpoint: Endpoint | None) -> str:
    """Address and state. A free slot needs an address too; that of nobody (RFC 5737)."""
    if endpoint is None:
        return "192.0.2.1:1 disabled"
    ip = f"[{endpoint.ip}]" if ":" in endpoint.ip else endpoint.ip
    return f"{ip}:{endpoint.port} weight {0 if endpoint.draining else 100}"

"""From Ingresses, Services and certificates to the table of routes. Pure.

Each value is judged here, once. What is wrong becomes a Problem, which names the field and what would be right, and
concerns only its own route: everything else is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from machinery.api.service_views import Service, ServicePortSpec
from services.ingress import annotations as ingress_annotations
from services.ingress import certificates, grammar
from services.ingress.annotations import Parsed
from services.ingress.api import BackendRef, Ingress
from services.ingress.certificates import BadCertificate
from services.ingress.table import Backend, Certificate, Options, Problem, Rewrite, Route, Table

CertificateOf = Callable[[str], "Certificate | None"]
ServiceOf = Callable[[str], "Service | None"]
APP_PROTOCOLS = {"kubernetes.io/h2c": "h2c", "grpc": "grpc"}
DEFAULT = "Default"


def build(ingresses: Iterable[Ingress], service_of: ServiceOf, certificate_of: CertificateOf, now: float) -> Table:
    """The table of these Ingresses, the oldest first.

    `service_of` answers a Service by key, `certificate_of` the certificate of a Secret by key: None if it does not
    exist, BadCertificate raised if it can't be used. `now` is in Unix seconds.
    """
    ordered = list(ingresses)
    table = _Building(service_of, certificate_of, now)
    for ingress in ordered:
        table.take_tls(ingress)
    for ingress in ordered:
        table.take_routes(ingress)
    return Table(
        tuple(table.routes),
        {host: secret for host, secret in table.tls.items() if secret},
        table.certificates,
        tuple(table.problems),
    )


@dataclass
class _Building:
    service_of: ServiceOf
    certificate_of: CertificateOf
    now: float
    routes: list[Route] = field(default_factory=list)
    # host -> Secret, or "" for the default certificate.
    tls: dict[str, str] = field(default_factory=dict)
    tls_owners: dict[str, str] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    # (host, kind of match, path) -> the Ingress that has it.
    claims: dict[tuple[str, str, str], str] = field(default_factory=dict)

    # --- TLS ----------------------------------------------------------------------------------------------------------

    def take_tls(self, ingress: Ingress) -> None:
        """Certificates of the hosts of one Ingress."""
        for index, entry in enumerate(ingress.spec.tls or ()):
            here = f"spec.tls[{index}]"
            secret = f"{ingress.metadata.namespace}/{entry.secret_name}" if entry.secret_name else ""
            found = self._certificate(ingress, secret, here) if secret else None
            hosts = entry.hosts or [rule.host for rule in ingress.spec.rules or () if rule.host]
            if not hosts and found is not None:
                hosts = list(found.names)
            for host in hosts:
                wrong = grammar.host(host)
                if wrong:
                    self._problem(ingress, "InvalidHost", f"{here}.hosts: {wrong}")
                    continue
                self._take_host(ingress, host, secret if found is not None else "", found, here)

    def _certificate(self, ingress: Ingress, secret: str, here: str) -> Certificate | None:
        if grammar.name(secret.partition("/")[2]):
            self._problem(ingress, "CertificateNotFound", f"{here}.secretName: is not a name of a Secret")
            return None
        try:
            found = self.certificate_of(secret)
        except BadCertificate as error:
            self._problem(ingress, "InvalidCertificate", f"{here}.secretName: Secret {secret} {error}")
            return None
        if found is None:
            message = f"{here}.secretName: there is no Secret {secret} of type {certificates.TLS_TYPE}"
            self._problem(ingress, "CertificateNotFound", message)
            return None
        if found.not_after < self.now:
            self._problem(ingress, "CertificateExpired", f"{here}.secretName: the certificate in {secret} has expired")
        return found

    def _take_host(
        self, ingress: Ingress, host: str, secret: str, found: Certificate | None, here: str
    ) -> None:  # fmt: skip
        if found is not None and not certificates.covers(found, host):
            message = (
                f"{here}: the certificate in {secret} is not for {host}, but for {', '.join(found.names) or 'no name'}"
            )
            self._problem(ingress, "CertificateMismatch", message)
        other = self.tls.get(host)
        if other and secret and other != secret:
            message = (
                f"{here}: {host} has the certificate of {other}, by Ingress {self.tls_owners[host]}, which is older"
            )
            self._problem(ingress, "CertificateConflict", message)
        elif not other:
            self.tls[host] = secret
            self.tls_owners[host] = ingress.key
            if found is not None:
                self.certificates[secret] = found

    def _tls_of(self, host: str) -> str | None:
        """The Secret of a host's certificate, "" for the default one, None without TLS."""
        return self.tls.get(host, self.tls.get(f"*.{host.partition('.')[2]}"))

    # --- routes -------------------------------------------------------------------------------------------------------

    def take_routes(self, ingress: Ingress) -> None:
        """The routes of one Ingress."""
        parsed = ingress_annotations.parse(ingress.metadata.annotations)
        for sentence in parsed.left_out:
            self._problem(ingress, "AnnotationIgnored", f"metadata.annotations: {sentence}")
        if parsed.refusal:
            self._problem(ingress, "NotServed", f"metadata.annotations: {parsed.refusal}")
        for wanted in self._wanted(ingress):
            self._take(ingress, wanted, parsed)

    def _wanted(self, ingress: Ingress) -> Iterator[_Wanted]:
        hosts: list[str] = []
        for number, rule in enumerate(ingress.spec.rules or ()):
            host = rule.host or ""
            hosts.append(host)
            for index, path in enumerate(rule.http.paths if rule.http else ()):
                here = f"spec.rules[{number}].http.paths[{index}]"
                yield _Wanted(host, path.path or "/", path.path_type, path.backend, here)
        default = ingress.spec.default_backend
        if default is None:
            return
        for host in dict.fromkeys(hosts):
            if host:
                yield _Wanted(host, "/", DEFAULT, default, "spec.defaultBackend")
        # By the API's definition also what no rule of anybody's matches. Only an Ingress that wants nothing else is
        # told that somebody was first.
        if not hosts or ("", DEFAULT, "/") not in self.claims:
            yield _Wanted("", "/", DEFAULT, default, "spec.defaultBackend")

    def _take(self, ingress: Ingress, wanted: _Wanted, parsed: Parsed) -> None:
        options, is_regex, error = _options(wanted, parsed, has_tls=self._tls_of(wanted.host) is not None)
        claimed = not error
        if not error:
            error = self._claim(ingress, wanted, is_regex)
            claimed = not error
        backend = None
        if not error:
            backend, error = self._backend(ingress, wanted, options)
        ref = wanted.backend.service
        self.routes.append(
            Route(
                wanted.host, wanted.path, wanted.path_type, ingress.key,
                service=ref.name if ref else "", port=_port_text(wanted.backend), is_regex=is_regex, backend=backend,
                tls_secret=self._tls_of(wanted.host) or "", error=error.message if error else "", claimed=claimed,
            )
        )  # fmt: skip
        if error:
            self._problem(ingress, error.reason, error.message)

    def _claim(self, ingress: Ingress, wanted: _Wanted, is_regex: bool) -> _Wrong | None:
        if is_regex:
            key = (wanted.host, "regex", wanted.path)
        elif wanted.path_type in ("Exact", DEFAULT):
            key = (wanted.host, wanted.path_type, wanted.path)
        else:
            key = (wanted.host, "Prefix", wanted.path.rstrip("/"))
        owner = self.claims.setdefault(key, ingress.key)
        if owner == ingress.key and key not in self._own(ingress):
            self._own(ingress).add(key)
            return None
        what = "the default backend" if wanted.path_type == DEFAULT else f"{wanted.host or '*'}{wanted.path}"
        who = "by a path further up" if owner == ingress.key else f"by Ingress {owner}, which is older"
        return _Wrong("DuplicateRoute", f"{wanted.here}: {what} is already served {who}")

    _own_keys: tuple[str, set[tuple[str, str, str]]] = ("", set())

    def _own(self, ingress: Ingress) -> set[tuple[str, str, str]]:
        if self._own_keys[0] != ingress.key:
            self._own_keys = (ingress.key, set())
        return self._own_keys[1]

    def _backend(
        self, ingress: Ingress, wanted: _Wanted, options: Options
    ) -> tuple[Backend | None, _Wrong | None]:  # fmt: skip
        ref, here, namespace = wanted.backend.service, wanted.here, ingress.metadata.namespace
        if ref is None:
            resource = wanted.backend.resource
            what = f"{resource.kind} {resource.name!r}" if resource else "nothing"
            return None, _Wrong("ResourceNotSupported", f"{here}: the backend is {what}; only Services are supported")
        service = self.service_of(f"{namespace}/{ref.name}")
        if service is None or service.spec is None or grammar.name(ref.name):
            return None, _Wrong("ServiceNotFound", f"{here}: there is no Service {namespace}/{ref.name}")
        if service.spec.type == "ExternalName":
            message = f"{here}: Service {namespace}/{ref.name} is of type ExternalName, which is not forwarded to"
            return None, _Wrong("ExternalNameNotSupported", message)
        port = _port(service, wanted.backend)
        if port is None:
            known = ", ".join(f"{p.name or ''}:{p.port}".lstrip(":") for p in service.spec.ports or ()) or "none"
            message = (
                f"{here}: Service {namespace}/{ref.name} has no TCP port {_port_text(wanted.backend)}; it has {known}"
            )
            return None, _Wrong("PortNotFound", message)
        if options.protocol == "http":
            options = msgspec.structs.replace(options, protocol=APP_PROTOCOLS.get(port.app_protocol or "", "http"))
        return Backend(namespace, ref.name, str(port.port), port.name or "", options), None

    def _problem(self, ingress: Ingress, reason: str, message: str) -> None:
        found = Problem(ingress.key, reason, message)
        if found not in self.problems:
            self.problems.append(found)


@dataclass(frozen=True, slots=True)
class _Wanted:
    host: str
    path: str
    path_type: str
    backend: BackendRef
    # The field, for messages.
    here: str


@dataclass(frozen=True, slots=True)
class _Wrong:
    reason: str
    message: str


def _options(wanted: _Wanted, parsed: Parsed, *, has_tls: bool) -> tuple[Options, bool, _Wrong | None]:
    """The options of a route, whether its path is a regular expression, and why it can't be served."""
    options, host, path = parsed.options, wanted.host, wanted.path
    if parsed.refusal:
        return options, False, _Wrong("NotServed", f"metadata.annotations: {parsed.refusal}")
    wrong = grammar.host(host) if host else None
    if wrong:
        return options, False, _Wrong("InvalidHost", f"{wanted.here.partition('.http')[0]}.host: {wrong}")
    if wanted.path_type not in ("Exact", "Prefix", "ImplementationSpecific", DEFAULT):
        return options, False, _Wrong("InvalidPath", f"{wanted.here}.pathType: {wanted.path_type!r} is not known")
    may_be_regex = wanted.path_type in ("Prefix", "ImplementationSpecific")
    is_regex = may_be_regex and (parsed.use_regex or "$" in parsed.rewrite_target)
    wrong = grammar.regex(path) if is_regex else grammar.path(path)
    if wrong:
        return options, is_regex, _Wrong("InvalidPath", f"{wanted.here}.path: {wrong}")
    if parsed.rewrite_target and wanted.path_type != DEFAULT:
        rewrite = Rewrite(parsed.rewrite_target, path if is_regex else "")
        if "$" in parsed.rewrite_target and not is_regex:
            message = (
                f"{wanted.here}.pathType: {wanted.path_type} has no groups for rewrite-target {parsed.rewrite_target}"
            )
            return options, is_regex, _Wrong("InvalidPath", message)
        options = msgspec.structs.replace(options, rewrite=rewrite)
    if parsed.force_ssl_redirect or (has_tls and parsed.ssl_redirect is not False):
        options = msgspec.structs.replace(options, redirect_to_tls=True)
    return options, is_regex, None


def _port(service: Service, backend: BackendRef) -> ServicePortSpec | None:
    assert backend.service is not None
    wanted = backend.service.port
    for port in service.spec.ports or ():
        if (port.protocol or "TCP") != "TCP" or not 0 < port.port < 65536:
            continue
        if (wanted.name and port.name == wanted.name) or (wanted.number and port.port == wanted.number):
            return port
    return None


def _port_text(backend: BackendRef) -> str:
    if backend.service is None:
        return ""
    return backend.service.port.name or str(backend.service.port.number or "")

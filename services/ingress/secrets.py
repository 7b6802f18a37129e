"""Certificates of Secrets, each parsed once."""

from __future__ import annotations

from collections.abc import Callable

from services.ingress import certificates
from services.ingress.api import Secret
from services.ingress.certificates import BadCertificate
from services.ingress.table import Certificate


class CertificateCache:
    """Answers by a Secret's key; what it parsed stays until the Secret changes or goes."""

    def __init__(self, secret_of: Callable[[str], Secret | None]) -> None:
        self._secret_of = secret_of
        self._parsed: dict[str, Certificate | BadCertificate] = {}

    def changed(self, old: Secret | None, new: Secret | None) -> None:
        """Handler for Secrets."""
        for secret in (old, new):
            if secret is not None:
                self._parsed.pop(f"{secret.metadata.namespace}/{secret.metadata.name}", None)

    def certificate_of(self, key: str) -> Certificate | None:
        """The certificate, None if there is no such Secret. Raises BadCertificate."""
        found = self._parsed.get(key)
        if found is None:
            secret = self._secret_of(key)
            if secret is None:
                return None
            try:
                found = certificates.from_secret(secret.type, secret.data)
            except BadCertificate as error:
                found = error
            self._parsed[key] = found
        if isinstance(found, BadCertificate):
            raise BadCertificate(str(found))
        return found

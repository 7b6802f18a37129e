"""The subject of a certificate, read from its DER: who a peer is.

The TLS library has parsed the certificate and checked its signature before we read it; here only the way to the subject
is walked, and whatever is not as X.509 has it is refused. The `cryptography` package does far more and costs a process
11 MB, which a node would pay four times.
Source: RFC 5280 section 4.1 (Certificate, Name), X.690 (DER).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

COMMON_NAME = bytes.fromhex("550403")
ORGANIZATION_NAME = bytes.fromhex("55040a")

_INTEGER, _OID, _SEQUENCE, _SET, _VERSION = 0x02, 0x06, 0x30, 0x31, 0xA0
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_LENGTH_BYTES_MAX = 4


def der_of(certificate: bytes) -> bytes:
    """The DER of a certificate in DER or PEM (the first one of a chain). Raises ValueError."""
    if not certificate.lstrip().startswith(b"-----"):
        return certificate
    _, begin, rest = certificate.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the PEM text holds no certificate")
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the PEM text of a certificate is not base64: {error}") from error


def subject(certificate: bytes) -> list[tuple[bytes, str]]:
    """(object identifier, text) of each attribute of a certificate's subject, in their order. Raises ValueError."""
    der = der_of(certificate)
    outer = _Reader(der, 0, len(der)).enter(_SEQUENCE)
    fields = outer.enter(_SEQUENCE)
    if fields.tag() == _VERSION:
        fields.skip(_VERSION)
    fields.skip(_INTEGER)
    for _signature_issuer_validity in range(3):
        fields.skip(_SEQUENCE)
    names = fields.enter(_SEQUENCE)
    found = []
    for relative in names.members(_SET):
        for attribute in relative.members(_SEQUENCE):
            oid = attribute.bytes(_OID)
            encoding = _ENCODINGS.get(attribute.tag())
            value = attribute.bytes(attribute.tag())
            if encoding is None:
                if oid in (COMMON_NAME, ORGANIZATION_NAME):
                    raise ValueError("a name in a certificate's subject is in an encoding that nobody uses any more")
                continue
            found.append((oid, value.decode(encoding)))
    return found


class _Reader:
    """Goes over the elements of `data[at:end]`. Every method raises ValueError where they are not as expected."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def tag(self) -> int:
        if self.at >= self.end:
            raise ValueError("a certificate ends too early")
        return self.data[self.at]

    def skip(self, tag: int) -> tuple[int, int]:
        """Pass an element of this tag: where its content starts and ends."""
        if self.tag() != tag:
            raise ValueError(f"a certificate has tag {self.tag():#x} where {tag:#x} belongs")
        start = self.at + 2
        length = self.data[self.at + 1] if start <= self.end else 0
        if length & 0x80:
            count = length & 0x7F
            # DER has no indefinite lengths.
            if not 0 < count <= _LENGTH_BYTES_MAX:
                raise ValueError("a length in a certificate is not DER")
            length = int.from_bytes(self.data[start : start + count], "big")
            start += count
        if start + length > self.end:
            raise ValueError("a certificate ends too early")
        self.at = start + length
        return start, self.at

    def enter(self, tag: int) -> _Reader:
        return _Reader(self.data, *self.skip(tag))

    def bytes(self, tag: int) -> bytes:
        start, end = self.skip(tag)
        return self.data[start:end]

    def members(self, tag: int) -> Iterator[_Reader]:
        while self.at < self.end:
            yield self.enter(tag)

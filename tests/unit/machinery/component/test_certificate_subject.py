"""Who a certificate names, held against the `cryptography` package."""

from __future__ import annotations

import contextlib
import datetime
from functools import lru_cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from machinery.component import tls
from machinery.component.certificate_subject import subject


@lru_cache(1)
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(*attributes: tuple[x509.ObjectIdentifier, str, _ASN1Type]) -> x509.Certificate:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    name = x509.Name([x509.NameAttribute(oid, text, _type=kind, _validate=False) for oid, text, kind in attributes])
    # The issuer has names too, which must not be taken for the subject's.
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:masters")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key().public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key(), hashes.SHA256())
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
kinds = st.sampled_from([_ASN1Type.UTF8String, _ASN1Type.BMPString])
oids = st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.LOCALITY_NAME])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(oids, texts, st.just(_ASN1Type.UTF8String)), max_size=6), st.booleans())
def test_names_are_those_that_cryptography_reads(attributes, pem):
    made = certificate(*attributes)
    encoded = made.public_bytes(serialization.Encoding.PEM if pem else serialization.Encoding.DER)
    names = [str(a.value) for a in made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(a.value) for a in made.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    assert tls.subject_of(encoded) == (names[0] if names else "", groups)


def test_other_encodings_of_text_are_read():
    made = certificate(
        (NameOID.COMMON_NAME, "Zoë", _ASN1Type.BMPString), (NameOID.ORGANIZATION_NAME, "web", _ASN1Type.PrintableString)
    )
    assert tls.subject_of(made.public_bytes(serialization.Encoding.DER)) == ("Zoë", ("web",))


def test_of_a_chain_the_first_certificate_counts():
    first, second = (
        certificate((NameOID.COMMON_NAME, name, _ASN1Type.UTF8String)).public_bytes(serialization.Encoding.PEM)
        for name in ("leaf", "authority")
    )
    assert tls.subject_of(first + second) == ("leaf", ())


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 20, 60, 90])
def test_what_ends_too_early_is_refused(cut):
    whole = certificate((NameOID.COMMON_NAME, "leaf", _ASN1Type.UTF8String)).public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError):
        subject(whole[:cut])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 110), st.integers(1, 255))
def test_a_changed_byte_never_ends_in_another_error(at, difference):
    whole = bytearray(
        certificate((NameOID.COMMON_NAME, "leaf", _ASN1Type.UTF8String)).public_bytes(serialization.Encoding.DER)
    )
    whole[at] ^= difference
    with contextlib.suppress(ValueError):
        subject(bytes(whole))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "base64"),
    ],
)
def test_pem_without_a_certificate_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        subject(text)

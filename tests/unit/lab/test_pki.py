import datetime
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.pki import Identity, Pki


@pytest.fixture
def pki(tmp_path):
    made = Pki(tmp_path / "pki")
    made.ensure("test")
    return made


def _certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.cert_file.read_bytes())


def _usages(identity: Identity) -> list[x509.ObjectIdentifier]:
    return list(_certificate(identity).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_client_certificate_names_its_user_and_groups(pki):
    subject = _certificate(pki.client("n1", "system:node:n1", ["system:nodes"])).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:n1"]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]


def test_client_and_server_certificates_are_never_good_for_the_other_use(pki):
    assert _usages(pki.client("a", "a")) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert _usages(pki.server("a", "a", ["localhost"])) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_private_keys_are_readable_by_their_owner_only(pki):
    pki.client("a", "a")
    for key in pki.directory.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key


def test_what_exists_is_left_alone(pki):
    first = pki.client("a", "a").cert_file.read_bytes()
    authority = (pki.directory / "ca.crt").read_bytes()
    pki.ensure("test")
    assert pki.client("a", "a").cert_file.read_bytes() == first
    assert (pki.directory / "ca.crt").read_bytes() == authority


def test_a_server_certificate_is_renewed_when_a_host_is_added(pki):
    before = pki.server("a", "a", ["localhost"]).cert_file.read_bytes()
    assert pki.server("a", "a", ["localhost"]).cert_file.read_bytes() == before
    renewed = _certificate(pki.server("a", "a", ["localhost", "10.0.0.1"]))
    names = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {"localhost", "10.0.0.1"}


def test_leaves_are_signed_by_the_authority_and_the_authority_signs_no_further_authorities(pki):
    leaf = _certificate(pki.client("a", "a"))
    authority = pki.authority().certificate
    leaf.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_a_certificate_is_renewed_in_the_last_third_of_its_life_and_says_the_same(pki):
    client = pki.client("n1", "system:node:n1", ["system:nodes"])
    server = pki.server("n1", "system:node:n1", ["localhost", "10.0.0.1"], ["system:nodes"])
    before = {identity: _certificate(identity) for identity in (client, server)}
    now = datetime.datetime.now(datetime.UTC)
    assert pki.renew_due(now + datetime.timedelta(days=240)) == []
    later = now + datetime.timedelta(days=250)
    assert sorted(pki.renew_due(later)) == ["n1", "n1-server"]
    for identity, old in before.items():
        new = _certificate(identity)
        assert new.serial_number != old.serial_number
        assert new.public_key() != old.public_key()
        assert (new.subject, new.issuer) == (old.subject, old.issuer)
        for extension in old.extensions:
            assert new.extensions.get_extension_for_oid(extension.oid) == extension
        new.verify_directly_issued_by(pki.authority().certificate)
        key = serialization.load_pem_private_key(identity.key_file.read_bytes(), password=None)
        assert key.public_key() == new.public_key()
        assert stat.S_IMODE(identity.key_file.stat().st_mode) == 0o600


def test_the_authorities_are_not_renewed_under_a_cluster(pki):
    before = (pki.directory / "ca.crt").read_bytes()
    pki.client("a", "a")
    far = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3500)
    assert "ca" not in pki.renew_due(far)
    assert (pki.directory / "ca.crt").read_bytes() == before

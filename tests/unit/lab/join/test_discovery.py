"""A host believes what is signed with its token and pinned, and nothing else."""

import base64
import datetime
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from lab.commands import joining
from lab.errors import LabError
from lab.join import discovery, host, signing, systemd, tokens
from lab.pki import Pki

ID, SECRET = "abcdef", "0123456789abcdef"


@pytest.fixture(scope="module")
def ca_pem(tmp_path_factory):
    pki = Pki(tmp_path_factory.mktemp("pki"))
    pki.ensure("t")
    return pki.ca_file.read_bytes()


@pytest.fixture
def info(ca_pem):
    content = tokens.cluster_info("https://192.0.2.1:6443", ca_pem)
    return {"kubeconfig": content, f"jws-kubeconfig-{ID}": discovery.sign(content, ID, SECRET)}


def test_what_the_token_signed_is_believed(info, ca_pem):
    assert discovery.judge(info, ID, SECRET, "") == ca_pem
    assert discovery.judge(info, ID, SECRET, tokens.ca_hash(ca_pem)) == ca_pem


def test_the_signature_is_the_one_that_rfc_7515_defines():
    # Made with joserfc, an independent implementation: detached by leaving the middle out.
    from joserfc import jws
    from joserfc.jwk import OctKey

    whole = jws.serialize_compact({"alg": "HS256", "kid": ID}, b"content", OctKey.import_key(SECRET))
    head, _, mac = whole.split(".")
    assert discovery.sign("content", ID, SECRET) == f"{head}..{mac}"


def test_another_secret_another_content_another_ca_are_refused(info, ca_pem):
    with pytest.raises(LabError, match="not signed with this token"):
        discovery.judge(info, ID, "0123456789abcdee", "")
    other = {**info, "kubeconfig": info["kubeconfig"].replace("192.0.2.1", "192.0.2.2")}
    with pytest.raises(LabError, match="not signed with this token"):
        discovery.judge(other, ID, SECRET, "")
    with pytest.raises(LabError, match="do not join"):
        discovery.judge(info, ID, SECRET, "sha256:" + "0" * 64)
    with pytest.raises(LabError, match="does not know token zzzzzz"):
        discovery.judge(info, "zzzzzz", SECRET, "")


@pytest.mark.parametrize(
    "content", ["", "[]", "clusters: []", "clusters: [{cluster: {certificate-authority-data: '%'}}]"]
)
def test_a_signed_content_without_a_ca_is_refused(content):
    info = {"kubeconfig": content, f"jws-kubeconfig-{ID}": discovery.sign(content, ID, SECRET)}
    with pytest.raises(LabError, match="holds no CA"):
        discovery.judge(info, ID, SECRET, "")


def test_addresses_and_tokens_are_checked_before_anything_is_asked():
    assert discovery.parse_server("https://m.example:7443/") == "m.example:7443"
    assert discovery.parse_server("m.example") == "m.example:6443"
    for bad in ("", "https://m/api"):
        with pytest.raises(LabError, match="is no address"):
            discovery.parse_server(bad)
    with pytest.raises(LabError, match="--token"):
        discovery.parse_token("abcdef")
    with pytest.raises(LabError, match="--ca-hash"):
        discovery.discover("m:1", f"{ID}.{SECRET}", "sha256:abc")


def test_tokens_have_the_form_that_clients_expect():
    first, second = tokens.new_token(), tokens.new_token()
    assert first != second
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", ".".join(first))


@pytest.mark.parametrize(("text", "expected"), [("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_a_lifetime_is_read(text, expected):
    assert joining.lifetime(text).total_seconds() == expected


@pytest.mark.parametrize("text", ["", "0h", "5", "1w", "-1h", "1h30m"])
def test_what_is_no_lifetime_is_refused(text):
    with pytest.raises(LabError, match="--ttl"):
        joining.lifetime(text)


def test_a_request_asks_for_exactly_what_is_wanted():
    wanted = signing.Wanted("system:node:a", signing.KUBELET_SERVING, ("system:nodes",), ("a", "192.0.2.9"))
    request = signing.request_of(wanted, ec.generate_private_key(ec.SECP256R1()), 600)
    csr = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert csr.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.9"]
    assert request["spec"]["usages"] == ["digital signature", "server auth"]
    assert request["spec"]["expirationSeconds"] == 600


def test_a_certificate_is_renewed_late_in_its_life_and_a_provisional_one_at_once(tmp_path):
    pki = Pki(tmp_path)
    pki.ensure("t")
    leaf = pki.client("a", "a").cert_file
    certificate = x509.load_pem_x509_certificate(leaf.read_bytes())
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    for chance, share in ((0.0, 0.7), (1.0, 0.9)):
        early = signing.renew_at(leaf, chance) - certificate.not_valid_before_utc - life * share
        assert abs(early) < datetime.timedelta(seconds=1)
    provisional = tmp_path / "p.pem"
    signing.write_provisional(provisional, "system:node:a")
    now = datetime.datetime.now(datetime.UTC)
    assert signing.renew_at(provisional, 1.0) <= now
    assert signing.renew_at(tmp_path / "absent.pem", 1.0) <= now
    assert provisional.stat().st_mode & 0o777 == 0o600


def test_a_refusal_is_told():
    denied = {"conditions": [{"type": "Denied", "message": "not today"}]}
    assert signing.refusal_of(denied) == "Denied: not today"
    assert signing.refusal_of({"conditions": [{"type": "Approved"}]}) == ""


def test_every_component_of_a_host_uses_its_own_certificate(tmp_path):
    made = host.JoinedHost(
        home=tmp_path, slot=3, nodes=(host.Node("web", 0),), server="192.0.2.1:9443", ip="192.0.2.9",
        apiservers=("192.0.2.1:9444",),
    )  # fmt: skip
    made.save()
    assert host.load(tmp_path) == made
    configs = {part.spec.component: part.config or {} for part in host.parts(made)}
    for component, pem in (("kubelet", "kubelet"), ("kube-proxy", "kube-proxy"), ("dns", "dns")):
        config = configs[component]
        assert config["apiserver"] == ["192.0.2.1:9444"]
        assert config["tls"]["cert_file"] == config["tls"]["key_file"] == str(tmp_path / "pki" / f"{pem}.pem")
        assert config["serving"]["cert_file"].endswith("serving.pem")
    assert not (tmp_path / "pki").exists()  # nothing was signed here


def test_units_are_complete_once_rendered(tmp_path):
    for name in (systemd.TEMPLATE, systemd.TARGET, "cutaway.service"):
        text = systemd.rendered(name, tmp_path)
        assert "@" not in re.sub(r"#.*", "", text), name
    assert f"run_process {tmp_path} %i" in systemd.rendered(systemd.TEMPLATE, tmp_path)

"""A host of its own joins over the network with a token, runs pods, renews its certificates, and leaves."""

import json
import subprocess

import pytest
from cryptography import x509

from tests.support import joined_host
from tests.support.joined_host import HOST_IP, MASTER_IP
from tests.support.lab_cluster import WEB_IMAGE, eventually

pytestmark = pytest.mark.root

NODE = "web-host"
PEMS = ("kubelet", "kube-proxy", "dns", "serving")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with joined_host.host(tmp_path_factory.mktemp("j")) as made:
        yield made


@pytest.fixture(scope="module")
def command(cluster, host):
    """`token create` prints the words for the new host."""
    line = cluster.cutaway("token", "create", "--address", MASTER_IP, "--ttl", "1h").strip().splitlines()[-1]
    assert line.startswith(f"cutaway join {MASTER_IP}:")
    return line.split()[1:]


@pytest.fixture(scope="module")
def joined(cluster, host, command):
    done = host.cutaway(*command, "--name", NODE)
    assert done.returncode == 0, done.stdout + done.stderr
    archive = next((cluster.home / "images").glob("nginx*.tar"))
    loaded = host.cutaway("image", "load", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    yield host
    assert host.cutaway("leave").returncode == 0
    assert not host.home.exists()
    cluster.kubectl("delete", "node", NODE)


def _serials(host):
    read = {name: (host.home / "pki" / f"{name}.pem").read_bytes() for name in PEMS}
    return {name: x509.load_pem_x509_certificate(pem).serial_number for name, pem in read.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda words: [*words[:3], words[3][:-1] + ("a" if words[3][-1] != "a" else "b"), *words[4:]], "not signed"),
        (lambda words: [*words[:3], "aaaaaa.0123456789abcdef", *words[4:]], "does not know token"),
        (lambda words: [*words[:5], "sha256:" + "0" * 64], "do not join"),
        (lambda words: [words[0], f"{MASTER_IP}:1", *words[2:]], "does not answer"),
        (lambda words: [*words, "--name", "node1"], "has a node 'node1' already"),
    ],
)
def test_who_can_t_prove_something_does_not_join_and_leaves_nothing(host, command, change, said):
    before = sorted(host.home.rglob("*"))
    refused = host.cutaway(*change(command))
    assert refused.returncode == 1
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert sorted(host.home.rglob("*")) == before


def test_a_pod_runs_on_the_joined_host_and_is_reached_from_the_others(cluster, joined, namespace):
    node = cluster.get("node", NODE)
    assert {"type": "InternalIP", "address": HOST_IP} in node["status"]["addresses"]
    overrides = json.dumps({"spec": {"nodeName": NODE}})
    cluster.kubectl("run", "far", "-n", namespace, f"--image={WEB_IMAGE}", f"--overrides={overrides}")
    cluster.kubectl("wait", "-n", namespace, "pod/far", "--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("expose", "pod", "far", "-n", namespace, "--port=80")
    # Exec goes to the host's kubelet, whose certificate the masters must accept.
    said = cluster.kubectl("exec", "-n", namespace, "far", "--", "sh", "-c", "echo here")
    assert said.strip() == "here"
    near = '{"spec":{"nodeName":"node1"}}'
    cluster.kubectl("run", "near", "-n", namespace, f"--image={WEB_IMAGE}", f"--overrides={near}")
    cluster.kubectl("wait", "-n", namespace, "pod/near", "--for=condition=Ready", "--timeout=60s")
    ip = cluster.get("pod", "far", "-n", namespace)["status"]["podIP"]
    for address in (ip, f"far.{namespace}"):
        got = _fetch(cluster, namespace, "near", address)
        assert "nginx" in got.lower()
    # And the other way, by the name that the host's own DNS server answers.
    cluster.kubectl("expose", "pod", "near", "-n", namespace, "--port=80")
    assert "nginx" in _fetch(cluster, namespace, "far", f"near.{namespace}").lower()
    # The host is nobody's neighbour: all that went through the tunnel.
    tunnel = json.loads(joined.network.run("ip", "-d", "-s", "-j", "link", "show", "cutaway-vxlan"))[0]
    assert tunnel["linkinfo"]["info_data"]["id"] == 4196
    assert min(tunnel["stats64"][way]["packets"] for way in ("rx", "tx")) > 10
    traced = cluster.cutaway("trace", f"{namespace}/near", f"{ip}:80")
    assert f"in a VXLAN tunnel to {HOST_IP}" in traced


def _fetch(cluster, namespace, pod, address):
    words = ["timeout", "5", "wget", "-qO-", f"http://{address}/"]
    return eventually(lambda: cluster.kubectl("exec", "-n", namespace, pod, "--", *words, timeout=20), seconds=30)


def test_its_certificates_are_its_own_and_renewed_while_everything_runs(cluster, joined, namespace):
    overrides = json.dumps({"spec": {"nodeName": NODE}})
    cluster.kubectl("run", "stays", "-n", namespace, f"--image={WEB_IMAGE}", f"--overrides={overrides}")
    cluster.kubectl("wait", "-n", namespace, "pod/stays", "--for=condition=Ready", "--timeout=60s")
    before, processes = _serials(joined), _pids(joined)
    joined.renew()
    after = _serials(joined)
    assert all(after[name] != before[name] for name in PEMS)
    log = joined.home / "logs" / f"kubelet-{NODE}.log"
    eventually(lambda: "certificate renewed, connecting anew" in log.read_text(), seconds=40)
    assert _pids(joined) == processes
    said = cluster.kubectl("exec", "-n", namespace, "stays", "--", "sh", "-c", "echo still")
    assert said.strip() == "still"
    assert cluster.get("pod", "stays", "-n", namespace)["status"]["containerStatuses"][0]["restartCount"] == 0
    # The host holds no key but its own.
    assert not list(joined.home.rglob("ca.key"))
    assert {path.name for path in (joined.home / "pki").iterdir()} == {"ca.crt", *(f"{name}.pem" for name in PEMS)}


def _pids(host):
    return {each["name"]: each["pid"] for each in json.loads(host.cutaway("status", "-o", "json").stdout)}


def test_a_deleted_token_lets_nobody_in(cluster, host, joined):
    line = cluster.cutaway("token", "create").strip().splitlines()[-1].split()
    token_id = line[4].partition(".")[0]
    assert token_id in cluster.cutaway("token", "list")
    assert line[4].partition(".")[2] not in cluster.cutaway("token", "list")
    cluster.cutaway("token", "delete", token_id)
    refused = subprocess.run(
        ["curl", "-sk", "-H", f"Authorization: Bearer {line[4]}", f"https://{line[2]}/api/v1/nodes/node1"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert '"code":401' in refused.stdout.replace(" ", "")

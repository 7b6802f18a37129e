"""Ingress on real nodes with real pods: who asks a node's address by a host's name reaches the pods."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.lab_cluster import ROOT, eventually
from tests.support.traffic import Traffic

from .conftest import pod, service

pytestmark = pytest.mark.root
CORRECTED = ROOT / "tests" / "integration" / "apiserver_schema" / "manifests" / "corrected"
ECHO = (
    'server { listen 8080; location / { return 200 "$hostname $request_uri $http_x_forwarded_host $remote_addr"; } }\n'
)


def ask(address, host, path="/", *, timeout=3):
    """What a node answers for a host and path: the words, or the status if it is no 200."""
    request = urllib.request.Request(f"http://{address}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.read().decode().split()
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def echo(cluster, namespace):
    """Two pods behind the Service `echo`, ready; the namespace."""
    pods = [pod("e1", "node1", {"app": "echo"}), pod("e2", "node2", {"app": "echo"})]
    for each in pods:
        command = each["spec"]["containers"][0]["command"]
        command[2] = f"printf '%s' '{ECHO}' > /etc/nginx/conf.d/default.conf; exec nginx -g 'daemon off;'"
    apply(cluster, namespace, *pods, service("echo"))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/e1", "pod/e2", "--timeout=60s")
    return namespace


def apply(cluster, namespace, *objects):
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(list(objects)))


def named(text, **replacements):
    for old, new in replacements.items():
        text = text.replace(old.replace("_", "-"), new)
    return yaml.safe_load(text)


def test_the_notes_ingress_with_a_host_answers_on_every_node_and_says_where(cluster, echo):
    wanted = named((CORRECTED / "ingress.yaml").read_text(), my_nginx_service="echo")
    apply(cluster, echo, wanted)
    addresses = [cluster.node_ip("node1"), cluster.node_ip("node2")]
    for address in addresses:
        eventually(lambda address=address: ask(address, "www.mywebpage.com") != 404, seconds=10)
        servers = {ask(address, "www.mywebpage.com")[0] for _ in range(6)}
        assert servers == {"e1", "e2"}, "both nodes' pods answer, whichever node is asked"
        assert ask(address, "another.test") == 404
    lines = (Path(cluster.home) / "logs" / "ingress-node1.log").read_text().splitlines()
    access = [json.loads(line) for line in lines if '"log":"access"' in line]
    assert [each["status"] for each in access if each["host"] == "www.mywebpage.com"][-1] == 200

    def status():
        found = cluster.get("ingress", wanted["metadata"]["name"], "-n", echo)["status"]["loadBalancer"].get("ingress")
        return sorted(each["ip"] for each in found or ())

    eventually(lambda: status() == sorted(addresses), seconds=10, what="the nodes' addresses in the status")
    assert cluster.get("ingress", wanted["metadata"]["name"], "-n", echo)["spec"]["ingressClassName"] == "cutaway"


def test_the_notes_minimal_ingress_rewrites_its_path(cluster, echo):
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx-example"},
        "spec": {"controller": "cutaway.dev/ingress"},
    }  # fmt: skip
    wanted = yaml.safe_load((CORRECTED / "minimal_ingress.yaml").read_text())
    wanted["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "echo"
    apply(cluster, echo, ingress_class, wanted)
    try:
        address = cluster.node_ip("node1")
        eventually(lambda: ask(address, "any.test", "/testpath/x") != 404, seconds=10)
        assert ask(address, "any.test", "/testpath/x")[1:3] == ["/", "any.test"]
        assert ask(address, "any.test", "/testpathx") == 404
    finally:
        cluster.kubectl("delete", "ingressclass", "nginx-example")


def test_an_update_of_a_deployment_loses_no_request_through_the_ingress(cluster, namespace):
    manifest = (ROOT / "examples" / "web.yaml").read_text().replace("      nodePort: 30007\n", "")
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    # The notes' Service has another port than their Ingress names; first the author is told, then it is put right.
    wanted = yaml.safe_load((CORRECTED / "ingress.yaml").read_text())
    apply(cluster, namespace, wanted)
    told = lambda: cluster.kubectl("describe", "ingress", "-n", namespace, wanted["metadata"]["name"])  # noqa: E731
    eventually(lambda: "has no TCP port 80; it has 8080" in told(), seconds=10, what="an Event")
    wanted["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"] = 8080
    apply(cluster, namespace, wanted)
    deployment = "deployment/nginx-deployment"
    cluster.kubectl("rollout", "status", "-n", namespace, deployment, "--timeout=60s")
    address = cluster.node_ip("node1")
    eventually(lambda: ask(address, "www.mywebpage.com") not in (404, 503), seconds=10)
    with Traffic(f"http://{address}/", headers={"Host": "www.mywebpage.com"}) as traffic:
        cluster.kubectl("set", "env", "-n", namespace, deployment, "RELEASE=2")
        cluster.kubectl("rollout", "status", "-n", namespace, deployment, "--timeout=90s")
    assert traffic.failures == []
    assert sum(traffic.answers.values()) > 50


def test_requests_go_on_when_the_controller_is_killed_and_its_successor_takes_over(cluster, echo):
    apply(cluster, echo, named((CORRECTED / "ingress.yaml").read_text(), my_nginx_service="echo"))
    address = cluster.node_ip("node1")
    eventually(lambda: ask(address, "www.mywebpage.com") not in (404, 503), seconds=10)
    pid = cluster.status()["ingress-node1"]["pid"]
    master = (Path(cluster.home) / "nodes" / "node1" / "ingress" / "haproxy.pid").read_text().split()[0]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert ask(address, "www.mywebpage.com")[0] in ("e1", "e2")
    eventually(lambda: cluster.status()["ingress-node1"]["health"] == "ok", seconds=20)
    assert Path(f"/proc/{master}").exists(), "the same proxy"
    # And the new one changes it.
    cluster.kubectl("delete", "ingress", "-n", echo, "my-nginx-ingress")
    eventually(lambda: ask(address, "www.mywebpage.com") == 404, seconds=10)


def test_curl_with_a_certificate_of_a_secret(cluster, echo, tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-keyout", tmp_path / "k", "-out", tmp_path / "c", "-subj", "/CN=tls.test",
         "-addext", "subjectAltName=DNS:tls.test"],
        check=True, capture_output=True,
    )  # fmt: skip
    cluster.kubectl(
        "create", "secret", "tls", "pair", "-n", echo, f"--cert={tmp_path / 'c'}", f"--key={tmp_path / 'k'}"
    )
    cluster.kubectl("create", "ingress", "secure", "-n", echo, "--rule=tls.test/*=echo:80,tls=pair")
    address = cluster.node_ip("node2")

    def curl(url, *arguments):
        argv = ["curl", "-s", "--cacert", tmp_path / "c", "--resolve", f"tls.test:443:{address}", *arguments, url]
        return subprocess.run(argv, capture_output=True, text=True, timeout=10).stdout

    eventually(lambda: curl("https://tls.test/x").split()[1:2] == ["/x"], seconds=10, what="an answer by trusted TLS")
    plain = curl("http://tls.test/x", "--resolve", f"tls.test:80:{address}", "-o", "/dev/null", "-w", "%{redirect_url}")
    assert plain == "https://tls.test/x"


def test_the_proxys_figures_are_for_those_who_show_a_certificate_of_the_cluster(cluster):
    address, pki = f"{cluster.node_ip('node1')}:10255", cluster.home / "pki"

    def curl(*arguments):
        words = ["curl", "-sS", "--max-time", "5", "-w", " %{http_code}", *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=20)

    assert curl(f"http://{address}/metrics").returncode != 0
    nobody = curl("--cacert", str(pki / "ca.crt"), f"https://{address}/metrics")
    assert nobody.returncode != 0
    assert "certificate required" in nobody.stderr
    mine = ["--cacert", str(pki / "ca.crt"), "--cert", str(pki / "admin.crt"), "--key", str(pki / "admin.key")]
    shown = curl(*mine, f"https://{address}/metrics")
    assert "haproxy_frontend_http_requests_total" in shown.stdout
    assert shown.stdout.endswith(" 200")
    # Nothing else is there.
    assert curl(*mine, f"https://{address}/stats").stdout.endswith(" 404")

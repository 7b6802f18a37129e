"""The controller as a process, by its own certificate, against a real apiserver: what it may, what it tells, what it
serves."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import pytest
import yaml

from lab import components, testing
from lab.cluster import PROJECT_ROOT
from lab.pki import Pki
from protos.cutaway.v1 import ingress_pb2, ingress_pb2_grpc
from tests.support.ingress_live import free_ports, self_signed
from tests.support.lab_cluster import eventually

pytestmark = pytest.mark.skipif(not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="needs HAProxy")


class Controller:
    """A cluster of one hollow node and a controller for it."""

    def __init__(self, cluster, run):
        self.cluster, self.run = cluster, run
        self.pki = Pki(cluster.home / "pki")
        self.http, self.https, self.grpc, self.web = free_ports(4)
        identity = self.pki.client("ingress", "system:ingress")
        serving = self.pki.server("ingress-node1", "system:ingress", ["localhost", "127.0.0.1"])
        config = {
            "name": "ingress", "apiserver": [cluster.grpc_address], "tls": components.tls(identity),
            "serving": components.tls(serving), "grpc_address": f"127.0.0.1:{self.grpc}",
            "http_address": f"127.0.0.1:{self.web}", "node_name": "node1", "address": "127.0.0.1",
            "published_address": "192.0.2.7",  # an endpoint on loopback would be refused
            "http_port": self.http, "https_port": self.https, "run_dir": str(run),
        }  # fmt: skip
        self.config = run / "config.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.process = None

    def start(self):
        log = (self.run / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.ingress", "--config", str(self.config)],
            cwd=PROJECT_ROOT, stdout=log, stderr=log, env=os.environ | components.ENVIRONMENT,
        )  # fmt: skip
        log.close()

    def kubectl(self, *arguments, stdin=None):
        argv = [str(Path(sys.executable).parent / "kubectl"), *arguments]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=60, env=self.cluster.environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def status_of(self, host, text="/"):
        conversation = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
        try:
            conversation.request("GET", text, headers={"Host": host})
            return conversation.getresponse().status
        finally:
            conversation.close()

    def routes(self):
        admin = self.cluster.admin
        files = [Path(f).read_bytes() for f in (admin.ca_file, admin.key_file, admin.cert_file)]
        with grpc.secure_channel(f"localhost:{self.grpc}", grpc.ssl_channel_credentials(*files)) as channel:
            stub = ingress_pb2_grpc.IngressStub(channel)
            try:
                return list(stub.ListRoutes(ingress_pb2.ListRoutesRequest(), timeout=5).routes)
            except grpc.RpcError as error:
                raise AssertionError(error.details()) from error

    def events(self, name):
        return [e["reason"] for e in self.get("events", "--field-selector", f"involvedObject.name={name}")["items"]]

    def addresses(self, name):
        found = self.get("ingress", name)["status"]["loadBalancer"].get("ingress")
        return [each["ip"] for each in found or ()]


@pytest.fixture(scope="module")
def controller():
    run = Path(tempfile.mkdtemp(prefix="ing-"))
    with testing.cluster(nodes=1) as cluster:
        made = Controller(cluster, run)
        made.kubectl("apply", "-f", str(PROJECT_ROOT / "deploy" / "addons" / "ingress.yaml"))
        made.start()
        try:
            yield made
        finally:
            made.process.terminate()
            made.process.wait(20)
            pid_file = run / "haproxy.pid"
            assert not pid_file.exists(), "a graceful stop ends the proxy too"
            shutil.rmtree(run, ignore_errors=True)


def test_an_ingress_gets_its_class_its_address_and_its_routes(controller):
    controller.kubectl("create", "service", "clusterip", "web", "--tcp=80:8080")
    controller.kubectl("create", "ingress", "first", "--rule=first.test/a*=web:80")
    eventually(lambda: controller.status_of("first.test", "/a/b") == 503, seconds=20, what="known, without endpoints")
    assert controller.status_of("first.test", "/b") == 404
    eventually(lambda: controller.addresses("first") == ["192.0.2.7"], seconds=10, what="its address")
    (route,) = [route for route in controller.routes() if route.ingress == "first"]
    assert (route.host, route.path, route.service, route.service_port) == ("first.test", "/a", "web", "80")


WITH_RESOURCE = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: stored}
spec:
  rules:
  - host: stored.test
    http:
      paths:
      - path: /icons
        pathType: Prefix
        backend: {resource: {apiGroup: k8s.example.test, kind: StorageBucket, name: icons}}
"""


def test_what_is_wrong_is_an_event_and_the_rest_is_served(controller, tmp_path):
    chain, _ = self_signed("x.test")
    _, other_key = self_signed("x.test")
    (tmp_path / "crt").write_bytes(chain)
    (tmp_path / "key").write_bytes(other_key)
    # kubectl itself refuses a pair that does not fit.
    data = f"--from-file=tls.crt={tmp_path / 'crt'}", f"--from-file=tls.key={tmp_path / 'key'}"
    controller.kubectl("create", "secret", "generic", "misfit", "--type=kubernetes.io/tls", *data)
    controller.kubectl(
        "create", "ingress", "wrong", "--rule=x.test/*=nobody:80,tls=misfit", "--rule=first.test/a*=web:80"
    )
    eventually(
        lambda: {"ServiceNotFound", "InvalidCertificate", "DuplicateRoute"} <= set(controller.events("wrong")),
        seconds=20, what="three events",
    )  # fmt: skip
    assert controller.status_of("first.test", "/a") == 503
    controller.kubectl("apply", "-f", "-", stdin=WITH_RESOURCE)
    eventually(lambda: "ResourceNotSupported" in controller.events("stored"), seconds=20)
    assert controller.status_of("stored.test", "/icons") == 503


@pytest.mark.parametrize("hostile", ["x\n    http-request deny", "${PATH}", "lua'"])
def test_a_hostile_annotation_is_told_and_reaches_no_configuration(controller, hostile):
    name = f"hostile-{abs(hash(hostile)) % 9999}"
    wanted = {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "annotations": {"nginx.ingress.kubernetes.io/rewrite-target": f"/{hostile}",
                                                    "nginx.ingress.kubernetes.io/configuration-snippet": hostile}},
        "spec": {"rules": [{"host": f"{name}.test", "http": {"paths": [{
            "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]},
    }  # fmt: skip
    controller.kubectl("apply", "-f", "-", stdin=json.dumps(wanted))
    eventually(lambda: {"NotServed", "AnnotationIgnored"} <= set(controller.events(name)), seconds=20)
    assert hostile not in (controller.run / "haproxy.cfg").read_text()
    assert controller.status_of(f"{name}.test") == 404


def test_a_killed_controller_leaves_the_proxy_to_the_next_one(controller):
    master = (controller.run / "haproxy.pid").read_text().split()[0]
    controller.process.send_signal(signal.SIGKILL)
    controller.process.wait(10)
    assert controller.status_of("first.test", "/a") == 503
    controller.kubectl("delete", "ingress", "first")
    controller.start()
    eventually(lambda: controller.status_of("first.test", "/a/b") == 503, seconds=20)
    # The younger Ingress with the same path has it now.
    eventually(lambda: [r.error for r in controller.routes() if r.host == "first.test"] == [""], seconds=20)
    assert (controller.run / "haproxy.pid").read_text().split()[0] == master
    assert Path(f"/proc/{master}").exists()


def test_no_other_secret_than_certificates_is_read_and_nothing_else_is_allowed(controller):
    def may(*question):
        argv = [str(Path(sys.executable).parent / "kubectl"), "auth", "can-i", *question, "--as=system:ingress"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=controller.cluster.environment)
        return done.stdout.strip() == "yes"

    assert may("list", "secrets")
    assert may("patch", "ingresses", "--subresource=status")
    assert may("create", "endpointslices", "-n", "kube-system")
    assert not may("create", "endpointslices", "-n", "default")
    assert not may("update", "secrets")
    assert not may("update", "ingresses")
    assert not may("create", "pods")

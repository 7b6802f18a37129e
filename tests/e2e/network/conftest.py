"""Servers that tell who they are and who asks, on both nodes, and a client."""

import json
import socket

import pytest

from tests.support.lab_cluster import WEB_IMAGE, eventually

ANSWER = 'server { listen 8080; location / { return 200 "$hostname $remote_addr\\n"; } }\n'


def pod(name, node="", labels=None):
    """A pod that answers "NAME CLIENT" on 8080 by HTTP."""
    containers = [
        {
            "name": "http",
            "image": WEB_IMAGE,
            "command": [
                "sh",
                "-c",
                f"printf '%s' '{ANSWER}' > /etc/nginx/conf.d/default.conf; exec nginx -g 'daemon off;'",
            ],
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": "echo"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": containers,
            **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
        },
    }


def service(name, **spec):
    """A Service of the echo pods."""
    base = {"selector": {"app": "echo"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


class Net:
    """What the tests do to the cluster in one namespace."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace

    def apply(self, *objects, namespace=""):
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.cluster.kubectl("apply", "-n", namespace or self.namespace, "-f", "-", stdin=json.dumps(items))

    def delete(self, *what):
        self.cluster.kubectl("delete", "-n", self.namespace, *what)

    def wait_ready(self, *names):
        self.cluster.kubectl(
            "wait", "-n", self.namespace, "--for=condition=Ready", *(f"pod/{n}" for n in names), "--timeout=60s"
        )

    def get(self, *what):
        return self.cluster.get(*what, "-n", self.namespace)

    def ip(self, name):
        return self.get("pod", name)["status"]["podIP"]

    def exec(self, name, *argv, check=True, container="http"):
        return self.cluster.kubectl("exec", "-n", self.namespace, name, "-c", container, "--", *argv, check=check)

    def ask(self, name, address, seconds=2):
        """What an HTTP server at an address answers to a pod, as (server, client); () if nothing."""
        return tuple(
            self.exec(name, "timeout", str(seconds), "wget", "-qO-", f"http://{address}/", check=False).split()
        )

    def cluster_ip(self, name):
        return self.get("service", name)["spec"]["clusterIP"]

    def node_port(self, name):
        return self.get("service", name)["spec"]["ports"][0]["nodePort"]


@pytest.fixture(scope="session")
def net(cluster):
    """`a` on node1 and `b` on node2 answer; `client` on node1 is selected by no Service."""
    cluster.kubectl("create", "namespace", "net-e2e")
    net = Net(cluster, "net-e2e")
    net.apply(pod("a", "node1"), pod("b", "node2"), pod("client", "node1", {"app": "client"}))
    net.wait_ready("a", "b", "client")
    yield net
    cluster.kubectl("delete", "namespace", "net-e2e", "--wait=true", "--timeout=60s", check=False)


def http_get(address, port, timeout=2.0, source=""):
    """(server, client) as this host sees it; raises OSError."""
    with socket.create_connection((address, port), timeout, (source, 0) if source else None) as conversation:
        conversation.settimeout(timeout)
        conversation.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := conversation.recv(65536):
            answer += chunk
    return tuple(answer.decode().partition("\r\n\r\n")[2].split())


__all__ = ["eventually", "http_get"]

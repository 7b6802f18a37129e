"""Records what a real kubectl sends: `python tests/unit/services/apiserver/rest/protobuf/record.py` rewrites
`bodies.json`.

A server that only stores request bodies stands in for the API server; the object that kubectl meant is what it prints
with `--dry-run=client -o json` for the same command. Both go into the file, the bodies in base64.
"""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

PATH = pathlib.Path(__file__).parent / "bodies.json"
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"

COMMANDS = r"""
create namespace team
create deployment web --image=nginx:1.27 --replicas=3 --port=80
create deployment tool --image=busybox -- sleep 3600
create configmap settings --from-literal=colour=blue --from-literal=empty=
create secret generic keys --from-literal=user=admin --from-literal=password=p4ss --type=Opaque
create secret docker-registry pull --docker-server=registry.example --docker-username=u --docker-password=p
create serviceaccount builder
create job once --image=busybox -- date
create cronjob tick --image=busybox --schedule=*/5\x20*\x20*\x20*\x20* --restart=OnFailure -- date
create role reader --verb=get,list,watch --resource=pods,deployments.apps --resource-name=web
create clusterrole metrics --verb=get --non-resource-url=/metrics
create clusterrole all-readers --aggregation-rule=rbac.example/to-readers=true
create rolebinding readers --role=reader --user=ann --group=devs --serviceaccount=default:builder
create clusterrolebinding metrics --clusterrole=metrics --serviceaccount=default:builder
create service clusterip web --tcp=80:8080
create service nodeport web --tcp=80:http --node-port=30080
create service loadbalancer web --tcp=443:8443
create service externalname far --external-name=db.example
create ingress web --class=public --rule=web.example/shop*=web:80,tls=web-tls --annotation=a=b --default-backend=web:80
create quota small --hard=cpu=1,memory=1Gi,pods=5 --scopes=BestEffort
create poddisruptionbudget web --selector=app=web --min-available=50%
create poddisruptionbudget web --selector=app=web --max-unavailable=1
create priorityclass high --value=1000 --global-default=false --description=For\x20us --preemption-policy=Never
create token builder --audience=api --duration=10m --bound-object-kind=Pod --bound-object-name=web
auth can-i create deployments.apps --subresource=scale
auth whoami
""".strip().splitlines()
# These print no object: what they mean is written here.
MEANT: dict[str, Any] = {
    "create token builder": {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "spec": {
            "audiences": ["api"],
            "expirationSeconds": 600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"},
        },
        "status": {"token": ""},
    },
    "auth can-i": {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {
            "resourceAttributes": {
                "namespace": "default", "verb": "create", "group": "apps", "resource": "deployments",
                "subresource": "scale",
            }
        },
        "status": {"allowed": False},
    },
    "auth whoami": {
        "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "status": {"userInfo": {}},
    },
}  # fmt: skip


class _Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies: ClassVar[list[tuple[str, bytes]]] = []

    def do_GET(self) -> None:
        verbs = {"namespaced": True, "verbs": ["create", "get", "list", "watch"]}
        pods = [{"name": "pods", "kind": "Pod", **verbs}]
        deployments = [{"name": "deployments", "kind": "Deployment", **verbs}]
        answers: dict[str, Any] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {
                "kind": "APIGroupList",
                "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}],
            },
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": pods},
            "/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": deployments},
        }
        self._answer(answers.get(self.path.partition("?")[0], {"kind": "Status", "status": "Failure", "code": 404}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.headers["Content-Type"], body))
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "stored", "code": 403})

    def _answer(self, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(document.get("code", 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _meant(command: str, arguments: list[str]) -> Any:
    for start, document in MEANT.items():
        if command.startswith(start):
            return document
    before, separator, after = command.partition(" -- ")
    head = [part.replace("\\x20", " ") for part in before.split()]
    tail = ["--", *after.split()] if separator else []
    printed = subprocess.run(
        [KUBECTL, *arguments, *head, "--dry-run=client", "-o", "json", *tail], check=True, capture_output=True
    )
    return json.loads(printed.stdout)


def main() -> None:
    """Run every command against the recorder and write the file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    arguments = ["--kubeconfig=/dev/null", f"--server=http://127.0.0.1:{server.server_port}", "--namespace=default"]
    recorded = []
    for command in COMMANDS:
        _Recorder.bodies.clear()
        words = [part.replace("\\x20", " ") for part in command.split()]
        run = subprocess.run([KUBECTL, *arguments, *words], check=False, capture_output=True, text=True)
        if len(_Recorder.bodies) != 1:
            raise SystemExit(f"{command}: {len(_Recorder.bodies)} bodies: {run.stderr}")
        content_type, body = _Recorder.bodies[0]
        recorded.append(
            {
                "command": command.replace("\\x20", " "),
                "contentType": content_type,
                "body": base64.b64encode(body).decode(),
                "object": _meant(command, arguments),
            }
        )
    server.shutdown()
    PATH.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()

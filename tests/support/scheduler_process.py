"""A real scheduler process beside an `ApiServerProcess`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from machinery.component.tls import TlsFiles
from tests.support.apiserver_process import ROOT, ApiServerProcess, files, free_port
from tests.support.memory import resident_mb


def _paths(tls: TlsFiles) -> dict[str, str]:
    return {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}


class SchedulerProcess:
    """Start and stop a scheduler of this apiserver."""

    def __init__(
        self, apiserver: ApiServerProcess, directory: Path, name: str = "scheduler", **settings: object
    ) -> None:
        pki = apiserver.pki
        self.grpc_port, self.http_port = free_port(), free_port()
        client = files(pki.client("scheduler", "system:kube-scheduler"))
        serving = files(pki.server("scheduler", "system:kube-scheduler", ["127.0.0.1", "localhost"]))
        self.config = directory / f"{name}.yaml"
        self.log = directory / f"{name}.log"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "name": name,
                    "apiserver": [apiserver.grpc],
                    "tls": _paths(client),
                    "serving": _paths(serving),
                    "grpc_address": f"127.0.0.1:{self.grpc_port}",
                    "http_address": f"127.0.0.1:{self.http_port}",
                    **settings,
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "services.scheduler", "--config", str(self.config)]
            self.process = subprocess.Popen(argv, cwd=ROOT, stderr=log, stdout=log)

    def stop(self, *, kill: bool = False) -> int:
        assert self.process is not None
        self.process.kill() if kill else self.process.terminate()
        return self.process.wait(10)

    def cpu_seconds(self) -> float:
        """What it has used of the cpu so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def resident_mb(self) -> float:
        """Its resident memory."""
        assert self.process is not None
        return resident_mb(self.process.pid)

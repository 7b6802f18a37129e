"""The first thing that a new user sees: a Deployment of three behind a Service, answering."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

import yaml

from lab import images, kubectl
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.progress import Say

EXAMPLE = PROJECT_ROOT / "examples" / "web.yaml"
ROLLOUT_SECONDS = 180
# With three pods chosen at random, 60 requests miss one of them once in 10^10 runs.
REQUESTS_MAX = 60


def run(cluster: Cluster, say: Say) -> list[str]:
    """Apply the example, wait for it with progress, and ask the Service until each pod has answered; the answers."""
    wanted = [document for document in yaml.safe_load_all(EXAMPLE.read_text()) if document]
    deployment = next(document for document in wanted if document["kind"] == "Deployment")
    service = next(document for document in wanted if document["kind"] == "Service")
    name, image = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    if not cluster.hollow:
        ensure_image(cluster, image, say)
    say(kubectl.run(cluster, "apply", "-f", str(EXAMPLE)).strip().replace("\n", ", "))
    _show_rollout(cluster, name, say)
    if cluster.hollow:
        return []
    return _ask_each_pod(cluster, service, deployment["spec"]["replicas"])


def ensure_image(cluster: Cluster, image: str, say: Say) -> None:
    """Have the image on every node: from its registry, or, where none answers, made of Debian's packages under its
    name."""
    missing = [node for node in cluster.nodes if not images.is_present(cluster, node, image)]
    if not missing:
        return
    if images.registry_answers(image):
        try:
            for node in missing:
                images.pull(cluster, node, image, say)
        except LabError as error:
            say(str(error))
        else:
            say(f"pulled {image}")
            return
    say(f"no registry gives it: building {image} from Debian's packages")
    archive = images.build_example(cluster, image)
    images.load(cluster, archive, [node.name for node in missing])
    say(f"loaded {image} into {', '.join(node.name for node in missing)}")


def _show_rollout(cluster: Cluster, name: str, say: Say) -> None:
    command = [kubectl.program(), "rollout", "status", f"deployment/{name}", f"--timeout={ROLLOUT_SECONDS}s"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kubectl.environment(cluster)
    ) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line.strip()
            say(last)
    if process.returncode != 0:
        raise LabError(f"the example did not become ready: {last}", "`cutaway kubectl describe pods` says why")


def _ask_each_pod(cluster: Cluster, service: dict[str, object], replicas: int) -> list[str]:
    """One answer from each pod, through the Service's node port on the first node. Raises LabError if one never
    answers."""
    spec = service["spec"]
    assert isinstance(spec, dict)
    url = f"http://{cluster.node_ip(cluster.nodes[0])}:{spec['ports'][0]['nodePort']}/"
    answers: dict[str, None] = {}
    deadline = time.monotonic() + 20
    error: Exception | None = None
    for _ in range(REQUESTS_MAX):
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                answers[response.read().decode().strip()] = None
        except OSError as caught:
            error = caught
        if len(answers) >= replicas or time.monotonic() > deadline:
            break
    if len(answers) < replicas:
        reason = f"; last error: {error}" if error else ""
        raise LabError(
            f"only {len(answers)} of {replicas} pods answered through {url}{reason}",
            "`cutaway status` shows what is ill",
        )
    return sorted(answers)


def next_steps(cluster: Cluster, root: Path = PROJECT_ROOT) -> str:
    """What to try next, as a person would type it."""
    config = cluster.admin_kubeconfig
    shown = config.relative_to(root) if config.is_relative_to(root) else config
    return f"""\
Try next:
  export KUBECONFIG={shown}                          # then kubectl, helm and your own clients work
  .venv/bin/cutaway kubectl get pods -o wide
  .venv/bin/cutaway kubectl scale deployment nginx-deployment --replicas 5
  .venv/bin/cutaway status                                # every component, its process and its health
  .venv/bin/cutaway watch                                 # a live page: who wrote what, because of what
  .venv/bin/cutaway stop scheduler                        # and watch what stops working
  .venv/bin/cutaway node add                              # another node on this machine
  make down                                               # stop everything, leave nothing behind"""

"""A component is taken out and another program put in its place, while the cluster goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cluster as clusters
from lab import images
from tests.support.lab_cluster import ROOT, WEB_IMAGE, eventually
from tests.support.private_containerd import PAUSE_IMAGE, busybox_archive

pytestmark = pytest.mark.root


def _phase(cluster, namespace, name):
    return cluster.get("pod", name, "-n", namespace)["status"].get("phase")


def test_the_example_scheduler_schedules_in_the_place_of_ours(cluster, namespace):
    command = [sys.executable, str(ROOT / "examples/scheduler_whole.py"), "--config", "{config}"]
    cluster.cutaway("swap", "scheduler", "--", *command, "--pods-of", "default-scheduler")
    try:
        cluster.kubectl("run", "web", "-n", namespace, "--image=nginx:1.14.2")
        eventually(lambda: _phase(cluster, namespace, "web") == "Running", seconds=30)
        # It fills the nodes in the order of their names; ours would have said so in an event.
        assert cluster.get("pod", "web", "-n", namespace)["spec"]["nodeName"] == "node1"
        events = cluster.get("events", "-n", namespace)["items"]
        assert not [event for event in events if event["reason"] == "Scheduled"]
    finally:
        cluster.cutaway("swap", "scheduler", "--undo")
    eventually(lambda: cluster.status()["scheduler"]["health"] == "ok", seconds=20)


def test_a_program_that_dies_at_once_is_taken_out_again(cluster):
    refused = cluster.run_cutaway("swap", "scheduler", "--", sys.executable, "-c", "raise SystemExit('no licence')")
    assert refused.returncode == 1
    assert "no licence" in refused.stderr
    assert "scheduler runs as before" in refused.stderr
    eventually(lambda: cluster.status()["scheduler"]["health"] == "ok", seconds=20)


def test_containerds_own_plugin_runs_pods_in_the_place_of_our_shim(cluster, namespace, tmp_path):
    def version():
        return cluster.get("node", "node2")["status"]["nodeInfo"]["containerRuntimeVersion"]

    def runs(name):
        spec = {"nodeName": "node2", "containers": [{"name": "c", "image": WEB_IMAGE}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
        eventually(lambda: _phase(cluster, namespace, name) == "Running", seconds=60)
        assert cluster.kubectl("exec", "-n", namespace, name, "--", "hostname").strip() == name
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=1", "--timeout=60s")

    before = version()
    cluster.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    try:
        example = [sys.executable, str(ROOT / "examples/runtime_containerd.py"), "{config}"]
        cluster.cutaway("swap", "cri-node2", "--", *example)
        eventually(lambda: version() != before and version().startswith("containerd://"), seconds=60)
        busybox_archive(tmp_path / "pause.tar", PAUSE_IMAGE, ["sleep", "1000000"])
        socket = cluster.home / "nodes" / "node2" / "run" / "cri.sock"
        for archive in (tmp_path / "pause.tar", images.build_example(clusters.require(cluster.home), WEB_IMAGE)):
            ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import", str(archive)]
            subprocess.run(ctr, check=True, capture_output=True, timeout=60)
        runs("by-containerd")
    finally:
        cluster.cutaway("swap", "cri-node2", "--undo")
        cluster.kubectl("uncordon", "node2")
    eventually(lambda: version() == before, seconds=60)
    runs("by-the-shim")


def test_a_swapped_component_has_its_own_kubeconfig_and_any_value_of_its_configuration(cluster, tmp_path):
    told = tmp_path / "told"
    kubectl = Path(sys.executable).parent / "kubectl"
    script = f"{kubectl} auth whoami -o json > {told}.who; echo $@ > {told}.words; exec sleep 1000"
    words = ["{apiserver}", "{tls.cert_file}", "{pki}", "{unknown}", "{print $1}"]
    cluster.cutaway("swap", "scheduler", "--", "sh", "-c", script, "sh", *words)
    try:
        who = json.loads(eventually(lambda: Path(f"{told}.who").read_text(), seconds=20))
        assert who["status"]["userInfo"]["username"] == "system:kube-scheduler"
        apiserver, certificate, pki, *own = Path(f"{told}.words").read_text().split()
        assert apiserver.rpartition(":")[2].isdecimal()
        assert certificate == f"{pki}/scheduler.crt"
        assert own == ["{unknown}", "{print", "$1}"]
        assert cluster.status()["scheduler"]["health"] == "ok"
    finally:
        cluster.cutaway("swap", "scheduler", "--undo")


def test_a_swapped_proxy_finds_no_rules_of_ours_and_ours_none_of_its(cluster, namespace):
    def tables():
        inside = ["nsenter", f"--net={spec['network_namespace']}", "--"] if spec["network_namespace"] else []
        return subprocess.run([*inside, "nft", "list", "tables"], capture_output=True, text=True, check=True).stdout

    spec = json.loads((cluster.home / "components" / "kube-proxy-node2.json").read_text())
    assert "ip cutaway-proxy" in tables()
    foreign = "nft add table ip kube-proxy; exec sleep 1000"
    cluster.cutaway("swap", "kube-proxy-node2", "--", "sh", "-c", foreign)
    try:
        eventually(lambda: "ip kube-proxy" in tables(), seconds=10)
        assert "ip cutaway-proxy" not in tables()
    finally:
        cluster.cutaway("swap", "kube-proxy-node2", "--undo")
    eventually(lambda: "ip cutaway-proxy" in tables() and "ip kube-proxy" not in tables(), seconds=30)

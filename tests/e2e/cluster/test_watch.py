"""`cutaway watch`: from `kubectl apply` to the nft rule, each step because of the one before it."""

import json
import subprocess
import threading

import pytest

from tests.support.lab_cluster import CUTAWAY, ROOT, WEB_IMAGE, eventually

pytestmark = pytest.mark.root


class Watching:
    """`cutaway watch -o json …` while a block runs; `steps` grows."""

    def __init__(self, cluster, *arguments):
        command = [*CUTAWAY, "watch", "-o", "json", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cluster.environment, cwd=ROOT)
        self.steps = []

    def __enter__(self):
        assert self.process.stdout.readline().startswith("cutaway: watching")
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            self.steps.append(json.loads(line))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
        self.reader.join(10)

    def chain(self, step):
        """A step and its causes, back to the first."""
        by_number = {each["number"]: each for each in self.steps}
        while step:
            yield step
            step = by_number.get(step["because"])


def test_the_rule_in_the_kernel_leads_back_to_the_apply(cluster, namespace):
    cluster.kubectl("create", "service", "clusterip", "web", "--tcp=80:80", "-n", namespace)
    with Watching(cluster, "deployment/web", "-n", namespace) as watching:
        cluster.kubectl("create", "deployment", "web", f"--image={WEB_IMAGE}", "-n", namespace)

        def written():
            return [
                step for step in watching.steps
                if step["component"] == "kube-proxy" and step["subject"].startswith("rules/web") and "→" in step["says"]
                and "reject" not in step["says"]
            ]  # fmt: skip

        rules = eventually(lambda: len({step["node"] for step in written()}) == 2 and written(), seconds=30)
    for rule in rules:
        chain = list(watching.chain(rule))
        who = [step["component"] for step in reversed(chain)]
        kinds = [step["subject"].partition("/")[0] for step in reversed(chain)]
        assert who[0] == "kubectl", chain
        assert who[-2:] == ["controller-manager", "kube-proxy"]
        assert [kind for n, kind in enumerate(kinds) if kind != kinds[n - 1]] == [
            "deployment", "replicaset", "pod", "endpointslice", "rules"
        ]  # fmt: skip
        assert "scheduler" in who
        assert "kubelet" in who
        assert any("add element" in command or "add rule" in command for command in rule["commands"])
    revisions = [step["revision"] for step in watching.steps if step["component"] != "kube-proxy"]
    assert revisions == sorted(revisions)


def test_what_does_not_exist_yet_is_watched_from_when_it_does_and_nothing_else(cluster, namespace):
    with Watching(cluster, "deployment/later", "-n", namespace) as watching:
        cluster.kubectl("create", "deployment", "other", f"--image={WEB_IMAGE}", "-n", namespace)
        cluster.kubectl("create", "deployment", "later", f"--image={WEB_IMAGE}", "--replicas=0", "-n", namespace)
        eventually(lambda: any(step["subject"] == "deployment/later" for step in watching.steps), seconds=15)
    assert all("/later" in step["subject"] for step in watching.steps)

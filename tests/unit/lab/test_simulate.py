"""What `cutaway simulate` asks the scheduler, and how it tells the answer."""

from collections import Counter

import pytest

from lab.errors import LabError
from lab.simulate import Placed, Simulation, pods_of, read


def workload(kind, **spec):
    return {"kind": kind, "metadata": {"name": "a", "namespace": "ns"}, "spec": spec}


def template(**spec):
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}


def test_each_kind_says_how_many_pods_it_asks_for():
    selector = {"matchLabels": {"app": "a"}}
    assert pods_of(workload("Deployment", replicas=3, template=template()))[0] == 3
    assert pods_of(workload("StatefulSet", template=template()))[0] == 1
    assert pods_of(workload("Job", parallelism=5, completions=2, template=template()))[0] == 2
    assert pods_of(workload("CronJob", jobTemplate={"spec": {"parallelism": 4, "template": template()}}))[0] == 4
    assert pods_of(workload("Pod", containers=[]))[0] == 1
    assert pods_of(workload("Deployment", replicas=3, template=template()), replicas=7)[0] == 7
    with pytest.raises(LabError, match="its pods go to the nodes that it names"):
        pods_of(workload("DaemonSet", template=template(), selector=selector))


def test_a_pod_is_free_to_go_anywhere_and_prefers_to_be_apart_from_its_siblings():
    selector = {"matchLabels": {"app": "a"}}
    _, pod = pods_of(workload("Deployment", template=template(nodeName="n1"), selector=selector))
    assert "nodeName" not in pod["spec"]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert (spread["whenUnsatisfiable"], spread["labelSelector"]) == ("ScheduleAnyway", selector)
    own = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    _, pod = pods_of(workload("Deployment", template=template(topologySpreadConstraints=own), selector=selector))
    assert pod["spec"]["topologySpreadConstraints"] == own


def test_claims_that_come_with_their_pods_are_left_out():
    mounts = [{"name": "data", "mountPath": "/d"}, {"name": "tmp", "mountPath": "/t"}]
    inner = template(containers=[{"name": "c", "image": "x", "volumeMounts": mounts}])
    claims = [{"metadata": {"name": "data"}, "spec": {}}]
    _, pod = pods_of(workload("StatefulSet", template=inner, volumeClaimTemplates=claims))
    assert pod["spec"]["containers"][0]["volumeMounts"] == mounts[1:]
    assert inner["spec"]["containers"][0]["volumeMounts"] == mounts, "the manifest itself stays as it is"


def test_a_manifest_without_a_workload_is_refused_by_name(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    with pytest.raises(LabError, match="has no workload"):
        read(file, "default")
    file.write_text("kind: List\nitems: [{kind: Pod, metadata: {name: a}}]\n")
    assert read(file, "here")[0]["metadata"]["namespace"] == "here"


def test_the_answer_says_where_how_many_and_why_not():
    placed = Placed("deployment/a", 4, Counter({"n2": 1, "n1": 2}), Counter({"0/2 nodes are available.": 1}))
    assert list(Simulation([placed], {"n1": 10}, 10).lines()) == [
        "deployment/a: 3 of 4 pods fit: 2 on n1, 1 on n2",
        "  1 can't be placed: 0/2 nodes are available.",
        "deployment/a: at least 10 more would fit: 10 on n1",
    ]

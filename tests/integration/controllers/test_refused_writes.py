"""A write that is refused, because somebody else changed the object meanwhile, stops those that count on it."""

from __future__ import annotations

from machinery.api import kinds
from tests.support.controllers import ControllerLab, pod_template
from tests.support.crashes import obj

TRACKING = "batch.kubernetes.io/job-tracking"


async def test_an_owner_does_not_go_before_every_dependent_was_let_go() -> None:
    async with ControllerLab("garbage-collector", kubelet=False) as lab:
        owner = await lab.create(obj("v1", "ConfigMap", "owner"))
        mine = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        for name in ("a", "b", "c"):
            await lab.create(obj("v1", "Secret", name, metadata={"ownerReferences": [mine]}))
        await lab.quiet()
        await lab.known(kinds.SECRET, 3)
        lab.freeze(kinds.SECRET)
        # What the collector knows of it is old from now on.
        await lab.patch(kinds.SECRET, "b", {"metadata": {"labels": {"changed": "meanwhile"}}})
        await lab.delete(kinds.CONFIG_MAP, "owner", propagation="Orphan")

        def owned() -> list[str]:
            secrets = lab.list(kinds.SECRET)
            return [each["metadata"]["name"] for each in secrets if each["metadata"].get("ownerReferences")]

        await lab.until(lambda: owned() == ["b"])
        for _ in range(5):
            await lab.resync()
        held = lab.get(kinds.CONFIG_MAP, "owner")
        assert held is not None
        assert held["metadata"]["finalizers"] == ["orphan"]
        lab.thaw(kinds.SECRET)
        await lab.until(lambda: lab.get(kinds.CONFIG_MAP, "owner") is None)
        await lab.quiet()
        assert owned() == []
        assert [each["metadata"]["name"] for each in lab.list(kinds.SECRET)] == ["a", "b", "c"]


async def test_a_pod_is_let_go_only_once_its_job_has_counted_it() -> None:
    async with ControllerLab("job", kubelet=False) as lab:
        spec = {"completions": 1, "parallelism": 1, "template": pod_template({}, restartPolicy="Never")}
        await lab.create(obj("batch/v1", "Job", "work", spec=spec))
        await lab.until(lambda: len(lab.pods()) == 1)
        await lab.quiet()
        await lab.known(kinds.JOB, 1)
        (pod,) = lab.pods()
        name = pod["metadata"]["name"]
        lab.freeze(kinds.JOB)
        await lab.patch(kinds.JOB, "work", {"metadata": {"annotations": {"changed": "meanwhile"}}})
        await lab.set_pod(name, phase="Succeeded")
        for _ in range(5):
            await lab.resync()
        assert lab.get(kinds.POD, name)["metadata"]["finalizers"] == [TRACKING]
        lab.thaw(kinds.JOB)
        await lab.until(lambda: lab.get(kinds.JOB, "work")["status"].get("succeeded") == 1)
        await lab.until(lambda: not lab.get(kinds.POD, name)["metadata"].get("finalizers"))
        assert [each["metadata"]["name"] for each in lab.list(kinds.POD)] == [name]

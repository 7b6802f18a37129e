"""kubectl against the real apiserver and the real controller-manager process; only the kubelets pretend."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


async def test_rollout_status_history_undo_pause_and_delete_work_as_kubectl_expects(plane: ControlPlane) -> None:
    await plane.kubectl("apply", "-f", "-", stdin=deployment("web", 3))
    out = await plane.kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    assert 'deployment "web" successfully rolled out' in out
    await plane.kubectl("set", "image", "deployment/web", "c=nginx:2")
    await plane.kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    history = await plane.kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.strip().splitlines()[2:]] == ["1", "2"]
    await plane.kubectl("rollout", "undo", "deployment/web")
    await plane.kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    pods = json.loads(await plane.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:1"}
    assert "ScalingReplicaSet" in await plane.kubectl("describe", "deployment", "web")
    await plane.kubectl("scale", "deployment/web", "--replicas=5")
    await plane.kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    await plane.kubectl("expose", "deployment/web", "--port=80")

    async def has_endpoints() -> bool:
        slices = json.loads(await plane.kubectl("get", "endpointslices", "-o", "json"))["items"]
        return any(
            len(entry.get("endpoints") or []) == 5
            for entry in slices
            if entry["metadata"]["labels"].get("kubernetes.io/service-name") == "web"
        )

    await plane.until(has_endpoints, "endpoints")
    await plane.kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=20s")
    pods = json.loads(await plane.kubectl("get", "pods,replicasets", "-o", "json"))["items"]
    assert not pods


async def test_a_namespace_with_contents_goes(plane: ControlPlane) -> None:
    await plane.kubectl(
        "apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    )
    await plane.kubectl("-n", "team", "apply", "-f", "-", stdin=deployment("web", 2) | {"metadata": {"name": "web"}})
    await plane.kubectl("-n", "team", "rollout", "status", "deployment/web", "--timeout=20s")
    await plane.kubectl("delete", "namespace", "team", "--timeout=20s")
    assert "NotFound" in await plane.kubectl("get", "namespace", "team", check=False)

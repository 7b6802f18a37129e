"""`kubectl top` against the real apiserver and a kubelet's figures."""

from __future__ import annotations

import asyncio

from tests.integration.apiserver_rest.fake_kubelet import EchoKubelet
from tests.support.kubectl import Kubectl


async def test_kubectl_top(kubectl: Kubectl, kubelet: EchoKubelet) -> None:
    def uid() -> str:
        capacity = '{"status":{"capacity":{"cpu":"2","memory":"1Gi"},"allocatable":{"cpu":"2","memory":"1Gi"}}}'
        kubectl("patch", "node", "n1", "--subresource=status", "--type=merge", "-p", capacity)
        return kubectl("get", "pod", "box", "-o", "jsonpath={.metadata.uid}")

    kubelet.uids.append(await asyncio.to_thread(uid))
    pods = await asyncio.to_thread(kubectl, "top", "pods")
    assert pods.splitlines()[1].split() == ["box", "100m", "64Mi"]
    containers = await asyncio.to_thread(kubectl, "top", "pods", "--containers")
    assert "main" in containers
    nodes = await asyncio.to_thread(kubectl, "top", "nodes")
    assert nodes.splitlines()[1].split() == ["n1", "100m", "5%", "64Mi", "6%"]
    resources = await asyncio.to_thread(kubectl, "api-resources", "--api-group=metrics.k8s.io", "--no-headers")
    assert [line.split()[-1] for line in resources.splitlines()] == ["NodeMetrics", "PodMetrics"]
    forbidden = await asyncio.to_thread(kubectl.fails, "top", "pods", "--as=jane")
    assert "Forbidden" in forbidden

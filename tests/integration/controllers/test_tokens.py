"""Token secrets go with what they stand for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from machinery.api import kinds
from tests.support.controllers import ControllerLab


async def test_token_secrets_go_with_their_account_and_when_they_expire() -> None:
    names = ("legacy-serviceaccount-token-cleaner-controller", "token-cleaner-controller")
    async with ControllerLab(*names, kubelet=False) as lab:
        account = await lab.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
        annotations = {
            "kubernetes.io/service-account.name": "robot",
            "kubernetes.io/service-account.uid": account["metadata"]["uid"],
        }
        await lab.create({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                          "metadata": {"name": "robot-token", "annotations": annotations}})  # fmt: skip
        for name, seconds in (("old", -5), ("new", 3600)):
            moment = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
            data = {"expiration": base64.b64encode(moment.encode()).decode()}
            metadata = {"name": f"bootstrap-token-{name}", "namespace": "kube-system"}
            secret = {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token"}
            await lab.create({**secret, "data": data, "metadata": metadata})
        await lab.until(lambda: lab.get(kinds.SECRET, "bootstrap-token-old", "kube-system") is None)
        await lab.delete(kinds.SERVICE_ACCOUNT, "robot")
        await lab.until(lambda: lab.get(kinds.SECRET, "robot-token") is None)
        assert lab.get(kinds.SECRET, "bootstrap-token-new", "kube-system")

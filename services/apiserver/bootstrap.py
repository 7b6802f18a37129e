"""What a cluster has before anybody asked for it: namespaces, roles, priority classes, the `kubernetes` Service and its
endpoints.

Everything is created only if it is missing, so that a restart, or a second apiserver, changes nothing; roles and
bindings of an earlier version get what they lack.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

from machinery.api import errors
from machinery.component import logs
from services.apiserver.auth import bootstrap_policy, bootstrap_upgrade
from services.apiserver.masters import Masters
from services.apiserver.registry.resource import Registry
from services.apiserver.request import SYSTEM, Request, WriteOptions
from services.apiserver.writes import Writer

log = logs.get("bootstrap")

SYSTEM_NAMESPACES = ("kube-system", "default", "kube-public", "kube-node-lease")
SYSTEM_PRIORITIES = {
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
}
ENDPOINT_SECONDS = 5.0
"""How often the `kubernetes` Service's endpoints are looked at. They change when apiservers come and go."""
AUTHENTICATION_NAMESPACE, AUTHENTICATION_NAME = "kube-system", "extension-apiserver-authentication"
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")


class Bootstrap:
    """Creates what is missing. `address` and `port` are where clients inside the cluster reach this apiserver's REST
    front."""

    def __init__(
        self, registry: Registry, writer: Writer, service_cidr: str, address: str, port: int,
        authentication: dict[str, str] | None = None, masters: Masters | None = None,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._writer = writer
        self._network = ipaddress.ip_network(service_cidr)
        self._address = address
        self._port = port
        self._authentication = authentication or {}
        # Those who are published besides us; None: nobody.
        self._masters = masters
        self._ended = False
        # What has been done, by the names of upstream's post-start hooks for it.
        self.done: set[str] = set()

    async def run(self) -> None:
        """Create everything that is missing."""
        for name in SYSTEM_NAMESPACES:
            await self._ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.done.add("start-system-namespaces-controller")
        policy = bootstrap_policy.objects()
        present = [obj for obj in policy if self._exists(obj)]
        missing = [obj for obj in (*policy, *_priorities()) if not self._exists(obj)]
        # Together, so that they share commits.
        await asyncio.gather(*map(self._ensure, missing), *map(self._upgrade, present))
        self.done |= {"rbac/bootstrap-roles", "scheduling/bootstrap-system-priority-classes"}
        await self._ensure(self._service())
        await self._ensure(self._service_range())
        self.done.add("start-kubernetes-service-cidr-controller")
        await self._tell_how_to_authenticate()
        self.done.add("start-cluster-authentication-info-controller")
        await self.publish()
        self.done.add("bootstrap-controller")

    async def keep_published(self) -> None:
        """Keep the endpoints of the `kubernetes` Service right, for ever."""
        while True:
            await asyncio.sleep(ENDPOINT_SECONDS)
            try:
                await self._ensure(self._service())
                await self._tell_how_to_authenticate()
                await self.publish()
            except errors.ApiError as err:
                log.warning("the kubernetes Service's endpoints could not be published", error=err.message)

    async def _tell_how_to_authenticate(self) -> None:
        """Keep the ConfigMap by which aggregated API servers know clients' and our own certificates."""
        if not self._authentication:
            return
        present = self._writer.lookup.get("configmaps", AUTHENTICATION_NAMESPACE, AUTHENTICATION_NAME)
        if present is not None and (present.get("data") or {}).items() >= self._authentication.items():
            return
        metadata = {"name": AUTHENTICATION_NAME, "namespace": AUTHENTICATION_NAMESPACE}
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self._authentication}
        if present is None:
            await self._ensure(wanted)
            return
        resource = self._registry.by_kind("v1", "ConfigMap")
        assert resource is not None
        namespace, name = AUTHENTICATION_NAMESPACE, AUTHENTICATION_NAME
        req = Request(SYSTEM, "patch", resource, "", namespace, name, "kube-apiserver")
        await self._writer.patch(req, "merge", {"data": self._authentication}, _OPTIONS)

    async def publish(self) -> None:
        """Say where this apiserver and the others are. An address of the loopback is nobody else's business, and no
        endpoint may have one."""
        if self._ended or ipaddress.ip_address(self._address).is_loopback:
            return
        addresses = {self._address}
        if self._masters is not None:
            await self._masters.renew()
            addresses |= await self._masters.addresses()
        await self._publish(addresses)

    async def withdraw(self) -> None:
        """Take this apiserver's address away, as it ends, unless nobody else serves."""
        if self._masters is None or ipaddress.ip_address(self._address).is_loopback:
            return
        self._ended = True
        staying = await self._masters.withdraw()
        if staying:
            await self._publish(staying)

    async def _publish(self, found: set[str]) -> None:
        # One slice has addresses of one family: ours.
        family = ipaddress.ip_address(self._address).version
        addresses = sorted(address for address in found if ipaddress.ip_address(address).version == family)
        for obj in (self._endpoints(addresses), self._slice(addresses)):
            resource = self._registry.by_kind(obj["apiVersion"], obj["kind"])
            assert resource is not None
            present = self._writer.lookup.get(resource.storage, "default", "kubernetes")
            if present is None:
                await self._ensure(obj)
                continue
            field = "subsets" if obj["kind"] == "Endpoints" else "endpoints"
            if _addresses(present, field) != _addresses(obj, field) or present.get("ports") != obj.get("ports"):
                req = Request(SYSTEM, "update", resource, "", "default", "kubernetes", "kube-apiserver")
                await self._writer.update(req, obj, _OPTIONS)

    # --- what there should be

    def _service(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": str(self._network[1]),
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self._port}],
                "sessionAffinity": "None",
            },
        }

    def _service_range(self) -> dict[str, Any]:
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [str(self._network)]},
        }

    def _endpoints(self, addresses: list[str]) -> dict[str, Any]:
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        return {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "subsets": [
                {
                    "addresses": [{"ip": address} for address in addresses],
                    "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
                }
            ],
        }

    def _slice(self, addresses: list[str]) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv6" if ":" in self._address else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
        }

    # --- creating

    def _exists(self, obj: dict[str, Any]) -> bool:
        resource = self._registry.by_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None, f"{obj['apiVersion']} {obj['kind']} is not served"
        metadata = obj["metadata"]
        return self._writer.lookup.exists(resource.storage, metadata.get("namespace") or "", metadata["name"])

    async def _upgrade(self, wanted: dict[str, Any]) -> None:
        resource = self._registry.by_kind(wanted["apiVersion"], wanted["kind"])
        assert resource is not None
        namespace, name = wanted["metadata"].get("namespace") or "", wanted["metadata"]["name"]
        present = self._writer.lookup.get(resource.storage, namespace, name)
        patch = bootstrap_upgrade.additions(present, wanted) if present is not None else {}
        if patch:
            req = Request(SYSTEM, "patch", resource, "", namespace, name, "kube-apiserver")
            await self._writer.patch(req, "merge", patch, _OPTIONS)
            log.info("brought up to date", kind=wanted["kind"], name=name)

    async def _ensure(self, obj: dict[str, Any]) -> None:
        if self._exists(obj):
            return
        resource = self._registry.by_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None
        namespace = obj["metadata"].get("namespace") or ""
        req = Request(SYSTEM, "create", resource, "", namespace, "", "kube-apiserver")
        try:
            await self._writer.create(req, obj, _OPTIONS)
        except errors.AlreadyExists:
            # Another apiserver was first.
            return


def _priorities() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        }
        for name, (value, description) in SYSTEM_PRIORITIES.items()
    ]


def _addresses(obj: dict[str, Any], field: str) -> list[Any]:
    parts = obj.get(field) or []
    if field == "subsets":
        return [
            (
                sorted(item["ip"] for item in part.get("addresses") or ()),
                [port.get("port") for port in part.get("ports") or ()],
            )
            for part in parts
        ]
    return [part.get("addresses") for part in parts]

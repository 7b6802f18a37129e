"""Version, Status and RuntimeConfig: what this runtime is, and whether it and its network are ready."""

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri.errors import CriError
from cri.runtime import Runtime

# The version of the kubelet's runtime API that the `version` fields have always named.
_KUBE_API_VERSION = "0.1.0"
_CRI_VERSION = "v1"
# The name says what runs the containers, since clients show it to people who look for containerd's behaviour.
_NAME = "cutaway-containerd"


async def version(runtime: Runtime) -> cri.VersionResponse:
    answer = await runtime.containerd.version.Version(timeout=5)
    return cri.VersionResponse(
        version=_KUBE_API_VERSION,
        runtime_name=_NAME,
        runtime_version=answer.version.split("~")[0].split("+")[0],
        runtime_api_version=_CRI_VERSION,
    )


async def status(runtime: Runtime, *, verbose: bool) -> cri.StatusResponse:
    ready = cri.RuntimeCondition(type="RuntimeReady", status=True)
    try:
        await runtime.containerd.version.Version(timeout=5)
    except CriError as error:
        ready = cri.RuntimeCondition(
            type="RuntimeReady", status=False, reason="ContainerdUnavailable", message=str(error)
        )
    network = cri.RuntimeCondition(type="NetworkReady", status=True)
    try:
        runtime.cni.network()
    except CriError as error:
        network = cri.RuntimeCondition(
            type="NetworkReady",
            status=False,
            reason="NetworkPluginNotReady",
            message=f"Network plugin returns error: {error}",
        )
    response = cri.StatusResponse(
        status=cri.RuntimeStatus(conditions=[ready, network]),
        # runc 1.1 knows `rro` mounts; mounts with mapped ids, which it does not know, are made by `idmapped`.
        runtime_handlers=[
            cri.RuntimeHandler(
                name=name,
                features=cri.RuntimeHandlerFeatures(
                    recursive_read_only_mounts=True, user_namespaces=runtime.user_namespaces
                ),
            )
            for name in ("", "runc")
        ],
        features=cri.RuntimeFeatures(supplemental_groups_policy=True),
    )
    if verbose:
        response.info["config"] = msgspec.json.encode(_public(runtime)).decode()
    return response


def _public(runtime: Runtime) -> dict[str, object]:
    """The configuration without the registries, which hold passwords."""
    config = msgspec.to_builtins(runtime.config)
    return {key: value for key, value in config.items() if key != "registries"}


def runtime_config(runtime: Runtime) -> cri.RuntimeConfigResponse:
    driver = cri.SYSTEMD if runtime.config.systemd_cgroup else cri.CGROUPFS
    return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=driver))

"""CRI resources as OCI resources: pure."""

from typing import Any

from cri_api.v1 import api_pb2 as cri

# The kernel's bounds of cpu.shares; what is outside is brought to the nearer one.
_SHARES_MIN, _SHARES_MAX = 2, 262144


def linux_resources(wanted: cri.LinuxContainerResources, *, swap_accounting: bool) -> dict[str, Any]:
    """The `linux.resources` of a spec, without device rules; a field that was not asked for is left out."""
    cpu: dict[str, Any] = {}
    if wanted.cpu_shares:
        cpu["shares"] = min(max(wanted.cpu_shares, _SHARES_MIN), _SHARES_MAX)
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_period:
        cpu["period"] = wanted.cpu_period
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    memory: dict[str, Any] = {}
    if wanted.memory_limit_in_bytes:
        memory["limit"] = wanted.memory_limit_in_bytes
        if swap_accounting:
            # Without a limit of its own, swap would let a container use twice its memory.
            memory["swap"] = wanted.memory_swap_limit_in_bytes or wanted.memory_limit_in_bytes
    result: dict[str, Any] = {}
    if cpu:
        result["cpu"] = cpu
    if memory:
        result["memory"] = memory
    if wanted.hugepage_limits:
        result["hugepageLimits"] = [{"pageSize": h.page_size, "limit": h.limit} for h in wanted.hugepage_limits]
    if wanted.unified:
        result["unified"] = dict(wanted.unified)
    return result


def merged(old: cri.LinuxContainerResources, new: cri.LinuxContainerResources) -> cri.LinuxContainerResources:
    """`old` with what `new` says: a zero or empty field of an update changes nothing."""
    result = cri.LinuxContainerResources()
    result.CopyFrom(old)
    for field, value in new.ListFields():
        if field.name in ("hugepage_limits", "unified"):
            result.ClearField(field.name)
            getattr(result, field.name).MergeFrom(value)
        else:
            setattr(result, field.name, value)
    return result

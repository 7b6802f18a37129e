"""What this node's kernel offers, read once."""

import os
from functools import cache
from pathlib import Path

from cri import apparmor, kernel, oci_security
from cri.oci_spec import NodeFacts

_CGROUP = Path("/sys/fs/cgroup")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _bounding_set() -> frozenset[str]:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapBnd:"):
            return frozenset(oci_security.from_mask(int(line.split()[1], 16)))
    return frozenset(oci_security.DEFAULT)


def cgroup_v2() -> bool:
    return (_CGROUP / "cgroup.controllers").exists()


def _swap_accounting(unified: bool) -> bool:
    if unified:
        # Only a cgroup below the root has memory.swap.max.
        own = _read("/proc/self/cgroup").rpartition("::")[2].strip("/")
        return (_CGROUP / own / "memory.swap.max").exists() if own else any(_CGROUP.glob("*/memory.swap.max"))
    return (_CGROUP / "memory/memory.memsw.limit_in_bytes").exists()


@cache
def facts() -> NodeFacts:
    unified = cgroup_v2()
    capabilities = _bounding_set()
    free = "CAP_SYS_RESOURCE" in capabilities
    return NodeFacts(
        capabilities=capabilities,
        cgroup_v2=unified,
        swap_accounting=_swap_accounting(unified),
        apparmor=apparmor.enabled(),
        apparmor_default=apparmor.default_profile(),
        architecture=kernel.machine()[0],
        hostname=os.uname().nodename,
        oom_score_adj_min=-1000 if free else int(_read("/proc/self/oom_score_adj") or 0),
    )

"""What this node's kernel offers, read once."""

import os
import tempfile
from functools import cache
from pathlib import Path

from cri import apparmor, kernel, namespaces, oci_security
from cri.errors import CriError
from cri.id_maps import IdMap
from cri.idmapped import Layer, Stage
from cri.logs import log
from cri.oci_spec import NodeFacts

# Any id will do for the try; this is far above those of people and services.
_PROBED_ID = 1 << 30
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


def user_namespaces(directory: Path) -> bool:
    """Whether a pod can have users of its own: tried out in `directory`, which is where images are kept. Blocking.

    It takes a user namespace with a map, an overlay on a mapped layer, and a mapped tmpfs, where Secrets are (Linux
    5.12, 5.19 and 6.3; and none of them where a container engine that we run inside forbids it).
    """
    ids = IdMap(_PROBED_ID, 65536)
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix="userns-") as name:
            return _mappable(Path(name), ids)
    except (OSError, CriError) as error:
        log.info("no user namespaces for pods", reason=str(error))
        return False


def _mappable(place: Path, ids: IdMap) -> bool:
    lower, upper, work, shm = (place / part for part in ("lower", "upper", "work", "shm"))
    for path in (lower, upper, work, shm):
        path.mkdir()
    (lower / "file").touch()
    overlay = Layer("overlay", "overlay", (f"upperdir={upper}", f"workdir={work}", f"lowerdir={lower}"))
    stage = Stage(place / "stage")
    try:
        kernel.mount("shm", str(shm), "tmpfs")
        namespaces.create(place, ["net"], ids=ids)
        stage.make([overlay], {0: str(shm)}, str(place / "user"), ids)
        return (stage.root / "file").stat().st_uid == ids.host_id
    finally:
        stage.remove()
        namespaces.remove(place)
        kernel.unmount(str(shm))


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

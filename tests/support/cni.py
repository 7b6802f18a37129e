"""Takes away what CNI plugins leave in the host's own network namespace, where tests run a runtime there."""

from __future__ import annotations

import shlex
import shutil
import subprocess

_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")


def _nat(program: str, *arguments: str) -> str:
    done = subprocess.run([program, "-t", "nat", *arguments], capture_output=True, text=True, timeout=20)
    return done.stdout if done.returncode == 0 else ""


def remove_portmap_chains() -> None:
    """Remove portmap's chains, unless a port of somebody is still mapped; and the table if nothing else is in it."""
    for program, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        if not shutil.which(program):
            continue
        mapped = [line for line in _nat(program, "-S", _CHAINS[0]).splitlines() if line.startswith("-A")]
        if mapped:
            continue
        for line in _nat(program, "-S").splitlines():
            if line.startswith("-A") and "CNI-HOSTPORT-" in line and not line.startswith("-A CNI-"):
                _nat(program, "-D", *shlex.split(line)[1:])
        for chain in _CHAINS:
            _nat(program, "-F", chain)
            _nat(program, "-X", chain)
        rest = _nat(program, "-S").splitlines()
        if rest and all(line.startswith("-P") for line in rest):
            subprocess.run(["nft", "delete", "table", family, "nat"], capture_output=True, timeout=20)

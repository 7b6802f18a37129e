"""The /etc/hosts that a pod's containers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightkube.models import core_v1

from services.kubelet.container_config import hostname_of

_BASE = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
fe00::\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def content(pod: core_v1.Pod, ips: Sequence[str], cluster_domain: str, host_file: str) -> str:
    """The file's text.

    The node's own for a pod on the host's network, else the pod's name and addresses; aliases at the end.
    """
    if pod.spec.hostNetwork:
        text = "# Kubernetes-managed hosts file (host network).\n" + host_file
    else:
        name, domain = hostname_of(pod, cluster_domain)
        names = f"{name}.{domain}\t{name}" if domain else name
        text = _BASE + "".join(f"{ip}\t{names}\n" for ip in ips)
    aliases = pod.spec.hostAliases or []
    if aliases:
        text = text.rstrip("\n") + "\n\n# Entries added by HostAliases.\n"
        text += "".join(f"{alias.ip}\t{chr(9).join(alias.hostnames or [])}\n" for alias in aliases)
    return text


def write(pod_dir: Path, pod: core_v1.Pod, ips: Sequence[str], cluster_domain: str) -> str:
    """Put the file into the pod's directory, if it is not there just so; its path."""
    try:
        host_file = Path("/etc/hosts").read_text(errors="replace") if pod.spec.hostNetwork else ""
    except OSError:
        host_file = ""
    path = pod_dir / "etc-hosts"
    text = content(pod, ips, cluster_domain, host_file)
    if not path.exists() or path.read_text(errors="replace") != text:
        path.write_text(text)
        path.chmod(0o644)
    return str(path)

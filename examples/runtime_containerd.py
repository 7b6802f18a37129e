"""containerd's own CRI plugin in the place of Cutaway's shim.

    cutaway swap cri-node1 -- .venv/bin/python examples/runtime_containerd.py {config}

It writes a configuration for a second containerd of the node, which listens where the kubelet expects a runtime and
keeps everything below the shim's own folder, and becomes that containerd. Pods of the one are not known to the other:
drain the node before, and load images into it by `ctr --address SOCKET --namespace k8s.io images import`.
"""

import json
import os
import sys
from pathlib import Path

import yaml

# What containerd would pull from a registry for every pod; `CUTAWAY_PAUSE_IMAGE` names another one.
PAUSE_IMAGE = os.environ.get("CUTAWAY_PAUSE_IMAGE", "registry.k8s.io/pause:3.9")


def configuration(shim: dict, home: Path) -> str:
    """containerd's, out of the shim's: the same socket, plugins and pod network."""
    cni = shim["cni"]
    return f"""version = 2
root = "{home}/root"
state = "{home}/state"

[grpc]
  address = "{shim["socket"]}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    # The kubelet tells the node's pod range; containerd puts it into the same template as the shim does.
    conf_dir = "{home}/cni"
    conf_template = "{cni["template"]}"
    bin_dir = {json.dumps(next(d for d in cni["bin_dirs"] if (Path(d) / "bridge").exists()))}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{home}/runc"
"""


def main() -> None:
    """Become containerd."""
    shim = yaml.safe_load(Path(sys.argv[1]).read_text())
    home = Path(shim["state"]).parent / "containerd-cri"
    (home / "cni").mkdir(parents=True, exist_ok=True)
    path = home / "config.toml"
    path.write_text(configuration(shim, home))
    Path(shim["socket"]).unlink(missing_ok=True)
    os.execvp("containerd", ["containerd", "--config", str(path), "--log-level", "warn"])  # noqa: S606 - its whole job


if __name__ == "__main__":
    main()

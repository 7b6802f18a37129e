"""A CNI plugin that hangs or fails for one pod: told by its deadline and in its own words; the others go on."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.cri.conftest import Node
from tests.support.containerd import CNI_BIN

DEADLINE_SECONDS = 2.0
# The last plugin of the list: it hangs for the pod `stuck`, refuses the pod `broken`, and passes the others on.
MOODY = f"""#!{sys.executable}
import json, os, sys, time
given = json.load(sys.stdin)
if "K8S_POD_NAME=stuck" in os.environ["CNI_ARGS"]:
    time.sleep(600)
if "K8S_POD_NAME=broken" in os.environ["CNI_ARGS"] and os.environ["CNI_COMMAND"] == "ADD":
    print(json.dumps({{"cniVersion": "1.0.0", "code": 111, "msg": "no more addresses on the uplink"}}))
    sys.exit(1)
print(json.dumps(given.get("prevResult", {{}})))
"""


@pytest.fixture
def moody(tmp_path: Path, archive: Path) -> Iterator[Node]:
    plugins = tmp_path / "bin"
    plugins.mkdir()
    (plugins / "moody").write_text(MOODY)
    (plugins / "moody").chmod(0o755)
    node = Node(tmp_path / "node")
    node.shim._settings["cni"] = {
        "conf_dir": str(node.containerd.cni_conf),
        "bin_dirs": [str(plugins), CNI_BIN],
        "timeout_seconds": DEADLINE_SECONDS,
    }
    try:
        node.start()
        node.load(archive)
        conf = next(node.containerd.cni_conf.iterdir())
        network = json.loads(conf.read_text())
        network["plugins"].append({"type": "moody"})
        conf.write_text(json.dumps(network))
        yield node
    finally:
        # What the hanging plugin has not taken down is tried again and again; now it lets go.
        (plugins / "moody").write_text(MOODY.replace("time.sleep(600)", "pass"))
        node.stop()


def test_one_pods_failure_is_told_and_leaves_nothing_and_the_others_get_their_network(moody: Node) -> None:
    refusals: dict[str, str] = {}

    def try_to_run(name: str) -> None:
        config = moody.client.pod_config()
        config.metadata.name = name
        try:
            moody.client.run_pod(config)
        except grpc.RpcError as error:
            refusals[name] = error.details()  # type: ignore[attr-defined]

    stuck = threading.Thread(target=try_to_run, args=("stuck",))
    stuck.start()
    pod = moody.client.run_pod()
    went_on_meanwhile = stuck.is_alive()
    try_to_run("broken")
    stuck.join(30)
    assert went_on_meanwhile
    assert "did not answer in 2 s" in refusals["stuck"]
    assert "no more addresses on the uplink" in refusals["broken"]
    leases = moody.directory / "containerd/ipam" / moody.containerd.bridge
    assert [lease.name for lease in leases.iterdir() if lease.name[0].isdigit()] == [pod.status().network.ip]

"""Image volumes of pods with users of their own: of one layer and of several, whole and by a sub path."""

from __future__ import annotations

from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from cri.images.build import build
from tests.contract.cri.test_user_namespaces import config_with, mapping
from tests.support.images import add_layer, busybox_root


@pytest.mark.parametrize("layers", [1, 2])
def test_files_of_an_image_volume_belong_to_the_users_of_the_pod(node, tmp_path: Path, layers: int) -> None:
    features = {h.name: h.features for h in node.client.runtime.Status(cri.StatusRequest()).runtime_handlers}
    if not features[""].user_namespaces:
        pytest.skip("this kernel has no user namespaces for us, or no mounts with mapped ids")
    root = busybox_root(tmp_path)
    (root / "data").mkdir()
    (root / "data/file").write_text("first")
    (root / "data/file").chmod(0o600)
    name = f"cutaway.test/mapped:{layers}"
    archive = tmp_path / "image.tar"
    build(root, name, archive, {"Cmd": ["true"]})
    if layers == 2:
        archive = add_layer(archive, tmp_path / "two.tar", {"data/other": ("second", 1000)})
    image = cri.ImageSpec(image=node.load(archive))
    pod = node.client.run_pod(config_with(node.client, mapping()))
    for sub_path, where in (("", "/v/data"), ("data", "/v")):
        mount = cri.Mount(
            container_path="/v", image=image, image_sub_path=sub_path, readonly=True,
            uidMappings=[mapping()], gidMappings=[mapping()],
        )  # fmt: skip
        script = f"stat -c %u:%g {where}/*; cat {where}/*; touch {where}/x 2>&1 | grep -c Read-only"
        expected = ["0:0", "first1"] if layers == 1 else ["0:0", "1000:1000", "firstsecond1"]
        assert pod.shell(script, mounts=[mount]).split() == expected
    for container in node.client.containers():
        node.client.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container.id))
    assert not list((node.directory / "shim/state/image-volumes").iterdir())
    assert str(node.directory / "shim/state/image-volumes") not in Path("/proc/self/mountinfo").read_text()

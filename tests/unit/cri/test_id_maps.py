"""Which user namespaces a request may ask for."""

import pytest
from cri_api.v1 import api_pb2 as cri

from cri.errors import InvalidArgument
from cri.id_maps import IdMap, of_mount, of_pod

ONE = cri.IDMapping(host_id=131072, container_id=0, length=65536)


def options(**fields: object) -> cri.NamespaceOption:
    values: dict[str, object] = {"mode": cri.POD, "uids": [ONE], "gids": [ONE], **fields}
    return cri.NamespaceOption(userns_options=cri.UserNamespace(**values))


def test_a_pod_without_one_or_with_the_nodes_has_no_map() -> None:
    assert of_pod(cri.NamespaceOption()) is None
    assert of_pod(options(mode=cri.NODE, uids=[], gids=[])) is None


def test_one_mapping_from_root_on() -> None:
    ids = of_pod(options())
    assert ids == IdMap(131072, 65536)
    assert ids.line == "0 131072 65536\n"
    assert ids.oci == [{"containerID": 0, "hostID": 131072, "size": 65536}]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (options(uids=[]), "uids: exactly one"),
        (options(gids=[ONE, ONE]), "gids: exactly one"),
        (options(uids=[cri.IDMapping(host_id=1, container_id=1, length=1)]), "is not 0"),
        (options(uids=[cri.IDMapping(host_id=2**32 - 2, length=2)]), "not a range"),
        (options(gids=[cri.IDMapping(host_id=65536, length=65536)]), "mapped alike"),
        (options(mode=cri.CONTAINER), "CONTAINER is not supported"),
        (options(mode=cri.NODE), "takes no mappings"),
    ],
)
def test_what_can_not_be_is_refused_by_name(given: cri.NamespaceOption, word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        of_pod(given)


def test_a_mount_is_mapped_as_its_pod_is() -> None:
    ids = IdMap(131072, 65536)
    mount = cri.Mount(container_path="/d", host_path="/h", uidMappings=[ONE], gidMappings=[ONE])
    assert of_mount(mount, ids)
    assert not of_mount(cri.Mount(container_path="/d", host_path="/h"), ids)
    with pytest.raises(InvalidArgument, match="a pod with a user namespace"):
        of_mount(mount, None)
    with pytest.raises(InvalidArgument, match="as the pod's are"):
        of_mount(mount, IdMap(65536, 65536))

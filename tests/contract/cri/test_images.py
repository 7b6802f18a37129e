"""The image service: list, status, names, removal, file-system figures."""

import os

from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, code_of
from tests.support.images import BUSYBOX


def _status(client: CriClient, name: str) -> cri.Image:
    return client.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name))).image


def test_an_image_is_found_by_every_one_of_its_names(client: CriClient) -> None:
    image = _status(client, BUSYBOX)
    assert image.id.startswith("sha256:")
    assert list(image.repo_tags) == [BUSYBOX]
    assert image.size > 100_000
    for name in (image.id, image.id.removeprefix("sha256:"), *image.repo_digests):
        assert _status(client, name).id == image.id
    assert image.uid.value == 0


def test_one_that_is_not_there_has_no_status_and_no_error(client: CriClient) -> None:
    answer = client.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image="cutaway.test/none:1")))
    assert not answer.HasField("image")


def test_the_list_has_it_and_can_be_filtered(client: CriClient) -> None:
    images = client.images.ListImages(cri.ListImagesRequest()).images
    assert BUSYBOX in [tag for image in images for tag in image.repo_tags]


def test_removal_of_what_is_not_there_succeeds(client: CriClient) -> None:
    request = cri.RemoveImageRequest(image=cri.ImageSpec(image="cutaway.test/none:1"))
    assert code_of(lambda: client.images.RemoveImage(request)) == "OK"


def test_the_file_system_is_where_the_snapshots_are(client: CriClient) -> None:
    answer = client.images.ImageFsInfo(cri.ImageFsInfoRequest())
    file_system = answer.image_filesystems[0]
    assert os.path.isdir(file_system.fs_id.mountpoint)
    assert file_system.timestamp > 0


def test_a_reference_that_is_none_is_refused(client: CriClient) -> None:
    for name in ("UPPER/case:1", "a b", "cutaway.test/x@sha256:short"):
        request = cri.PullImageRequest(image=cri.ImageSpec(image=name))
        assert code_of(lambda request=request: client.images.PullImage(request)) != "OK"

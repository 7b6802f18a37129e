"""How far a pull is, as the person who waits for it reads it."""

import json

import pytest

from lab.cluster import create
from lab.errors import LabError
from lab.images import chosen, progress_text


def _line(image: str, received: int, total: int) -> str:
    return json.dumps({"event": "pulling image", "image": image, "received_bytes": received, "total_bytes": total})


def test_the_latest_word_about_the_image_counts():
    lines = ["no json at all", _line("docker.io/library/nginx:1", 1_000_000, 9_000_000)]
    lines.append(_line("docker.io/library/nginx:1", 4_560_000, 9_000_000))
    lines.append(_line("docker.io/library/other:1", 1, 2))
    assert progress_text("nginx:1", lines) == "pulling nginx:1: 4.6 of 9.0 MB"


def test_an_image_whose_name_only_ends_alike_is_another():
    assert progress_text("inx:1", [_line("docker.io/library/nginx:1", 1, 2)]) == ""


def test_simulated_nodes_have_no_images(tmp_path):
    with pytest.raises(LabError, match="simulated nodes have no images"):
        chosen(create(tmp_path, nodes=1, hollow=True), ())

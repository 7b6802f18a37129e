"""Every command that the documentation shows for simulated nodes works as it stands there."""

from collections.abc import Iterator

import pytest

from tests.support import doc_commands
from tests.support.lab_cluster import LabCluster

SLOT = 9


@pytest.fixture(scope="module")
def hollow(tmp_path_factory) -> Iterator[LabCluster]:
    cluster = LabCluster(tmp_path_factory.mktemp("docs"), SLOT)
    try:
        cluster.cutaway("up", "--hollow", "--nodes", "2")
        yield cluster
    finally:
        cluster.cutaway("down", "--purge", check=False)


@pytest.mark.parametrize("page", doc_commands.pages_with("hollow"), ids=doc_commands.page_name)
def test_the_commands_of_a_page_work(page, hollow):
    doc_commands.run(page, "hollow", hollow.environment)

"""Every command that the documentation shows for real nodes works as it stands there."""

import pytest

from tests.support import doc_commands

pytestmark = pytest.mark.root


@pytest.mark.parametrize("page", doc_commands.pages_with("node"), ids=doc_commands.page_name)
def test_the_commands_of_a_page_work(page, cluster):
    doc_commands.run(page, "node", cluster.environment)

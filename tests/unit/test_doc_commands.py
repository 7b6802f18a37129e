"""Each block of commands in the documentation says which test runs it."""

import pytest

from tests.support.doc_commands import WHERE, Block, blocks, page_name, pages

ALL = [block for page in pages() for block in blocks(page)]


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{page_name(block.page)}:{block.line}")
def test_every_block_of_commands_says_where_it_is_run(block: Block):
    assert block.where in WHERE, "put `<!-- run: hollow|node|elsewhere, WHY -->` above the block"
    assert block.commands, "a command begins with `$ `"
    assert bool(block.why) == (block.where == "elsewhere"), "a reason is for blocks that no test here runs"


def test_the_pages_have_commands_of_each_sort():
    assert {block.where for block in ALL} == set(WHERE)

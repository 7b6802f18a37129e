"""Watching a cluster work: every write and every change of the rules, each linked to what caused it.

`sentences.py` says what one write did, `story.py` finds its cause; both are pure. `gather.py` follows the components
over gRPC, `page.py` serves the live page, `terminal.py` prints one object's part of it. Read `story.py` first.
"""

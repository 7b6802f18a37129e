"""A limit on how long synchronous code of a third party may run in our thread.

A plugin that loops for ever would stop the event loop, and with it the whole scheduler. The alarm's handler runs
between two bytecodes of the plugin and raises there; code that sits in C for ever can't be helped. In other threads
than the main one there is no limit.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Hung(Exception):
    """The code took longer than it may."""


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Hung("took longer than allowed")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Hung inside the block if it runs for longer. Not to be nested."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def give_back() -> None:
    """Return freed memory to the system, after a peak: the first sight of a large cluster, say.

    The C library keeps it otherwise, for the next peak, which may never come. Some tens of milliseconds; where the C
    library has no malloc_trim(3), as musl's has not, nothing happens.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

"""Moving SQLite's write-ahead log into the database file, beside the writer and not in its way.

By itself SQLite does this within the commit that makes the log too long, and that commit waits for megabytes and for a
flush of another file. Here a thread with a connection of its own moves most of it while commits go on behind; the
writer then moves only what has been added meanwhile, which is little. Once all is moved, the next commit starts the log
from its beginning.
"""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

from sqlalchemy import Engine

LOG_BYTES_MAX = 16 * 1024 * 1024
"""After about this much in the log its content is moved. The file itself may grow to about twice that."""


class Checkpointer:
    """Used by the writer's thread: `written` after each commit, `advance` before each transaction."""

    def __init__(self, writers: Engine) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage-checkpoint")
        self._engine = writers
        self._pending = 0
        self._moving: Future[None] | None = None

    def written(self, size: int) -> None:
        """About `size` bytes have gone into the log."""
        self._pending += size
        if self._pending > LOG_BYTES_MAX and self._moving is None:
            self._moving = self._thread.submit(self._move)

    def advance(self, cursor: sqlite3.Cursor) -> None:
        """If the thread is done, move the rest, so that the log can begin anew."""
        if self._moving is None or not self._moving.done():
            return
        self._moving = None
        self._pending = 0
        checkpoint(cursor)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _move(self) -> None:
        # A connection for each time: an idle one would keep page caches and its place in the log.
        connection = self._engine.raw_connection()
        try:
            checkpoint(cast(sqlite3.Cursor, connection.cursor()))
        finally:
            connection.close()


def checkpoint(cursor: sqlite3.Cursor) -> None:
    """Move what no reader still needs in the log. PASSIVE never waits for anybody."""
    # It fails on a full disk, which whoever commits next is told. Nothing is lost: the log has it all.
    with contextlib.suppress(sqlite3.Error):
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

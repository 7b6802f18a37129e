"""What is said while something takes long: nothing in the first second, then what is being done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

Say = Callable[[str], None]

LOOK_SECONDS = 1.0
# The same thing is said again after this long, so that nobody takes it for hanging.
AGAIN_SECONDS = 10.0


class Waiting:
    """`with Waiting(say, "forgetting history"):` says so if it takes longer than a second, and again every ten."""

    def __init__(self, say: Say, what: str) -> None:
        self._say = say
        self._what = what
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def now(self, what: str) -> None:
        """Another step of it has begun, or is so far."""
        self._what = what

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        began = told = time.monotonic()
        said = ""
        while not self._ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            if self._what == said and now - told < AGAIN_SECONDS:
                continue
            told, again, said = now, self._what == said, self._what
            self._say(f"{said} ({now - began:.0f} s so far)" if again else said)

"""Steady HTTP traffic from a thread, which counts what fails: for "no request fails while …"."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import Counter

PAUSE_SECONDS = 0.01


class Traffic:
    """Asks one URL again and again, each time over a new connection, until it is stopped."""

    def __init__(self, url: str, *, timeout: float = 3.0, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.headers = headers or {}
        self.timeout = timeout
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic to {url}", daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self.timeout + 1)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                request = urllib.request.Request(self.url, headers=self.headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    self.answers[response.read().decode().strip()] += 1
            except OSError as error:
                self.failures.append(f"{error} after {time.monotonic() - began:.2f} s")

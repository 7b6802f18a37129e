"""Silence while something is quick, words while it is not."""

from __future__ import annotations

import threading

import pytest

from lab import progress
from lab.progress import Waiting


class Listener:
    """Hears lines, and lets one wait for the next."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._heard = threading.Semaphore(0)

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._heard.release()

    def wait(self) -> str:
        assert self._heard.acquire(timeout=20)
        return self.lines[-1]


def test_what_is_quick_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_SECONDS", 60.0)
    said = Listener()
    with Waiting(said, "copying") as waiting:
        waiting.now("copying: 50 %")
    assert said.lines == []


def test_what_takes_long_says_how_far_it_is_and_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "AGAIN_SECONDS", 0.05)
    said = Listener()
    with Waiting(said, "copying") as waiting:
        assert said.wait() == "copying"
        assert said.wait() == "copying (0 s so far)"
        waiting.now("checking")
        while said.wait() != "checking":
            pass
    assert not any(thread.name == "progress" for thread in threading.enumerate())

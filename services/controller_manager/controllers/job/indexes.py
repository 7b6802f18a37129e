"""Completion indexes: the compressed text of the API ("1,3-5,7"), and where a pod carries its own."""

from __future__ import annotations

from collections.abc import Iterable

from services.controller_manager.views.pod import Pod

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"


def parse(text: str | None) -> set[int]:
    """The set that a text means; what is not a number in it is left out."""
    out: set[int] = set()
    for part in (text or "").split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            out.update(range(int(first), int(last if dash else first) + 1))
    return out


def render(indexes: Iterable[int]) -> str:
    """The text of a set: runs of three or more as "first-last"."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(indexes), -1]:
        if run and index == run[-1] + 1:
            run.append(index)
            continue
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts += map(str, run)
        run = [index]
    return ",".join(parts)


def index_of(pod: Pod) -> int | None:
    """The pod's completion index."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdigit() else None


def failures_of(pod: Pod) -> int:
    """How often its index had failed before this pod."""
    text = pod.metadata.annotations.get(FAILURES, "")
    return int(text) if text.isdigit() else 0

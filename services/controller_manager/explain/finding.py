"""One link in a chain of causes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a subject, why, and what would mend it. Without `because` it is the end of its chain."""

    # "pod/web-7d4b9-x2x1z"
    subject: str
    # A sentence without its subject: "is Pending: no node has room for it".
    problem: str
    remedy: str = ""
    because: tuple[Finding, ...] = ()

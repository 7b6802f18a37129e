"""One link in a chain of causes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a subject, why, and what would mend it. Without `because` it is the end of its chain."""

    # "pod/web-7d4b9-x2x1z"
    subject: str
    # A sentence without its subject: "is Pending: no node has room for it".
    problem: str
    remedy: str = ""
    because: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For `-o json`."""
        return asdict(self)


def render(findings: tuple[Finding, ...], depth: int = 0) -> list[str]:
    """Lines for a screen: each cause below what it causes."""
    lines = []
    for finding in findings:
        indent = "  " * depth
        lines.append(f"{indent}{'└ ' if depth else ''}{finding.subject} {finding.problem}")
        if finding.remedy:
            lines.append(f"{indent}{'  ' if depth else ''}  → {finding.remedy}")
        lines += render(finding.because, depth + 1)
    return lines

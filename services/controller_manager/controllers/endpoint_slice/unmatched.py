"""Tells of Services whose selector matches no pod, once it has been so for a while.

Upstream says nothing, and a misspelt label is then found by nobody. A Service that comes before its pods, or is without
any for the moments of an update, is no news.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from services.controller_manager.actions import NORMAL, Emit, Plan

REASON = "NoMatchingPods"


class Unmatched:
    """Since when which Service is without pods, and whether that was told. Bounded by the Services that there are."""

    def __init__(self, after_seconds: float) -> None:
        self.after_seconds = after_seconds
        # Key -> (selector, since, told).
        self._since: dict[str, tuple[str, datetime, bool]] = {}

    def look(self, key: str, selector: Mapping[str, str], *, matched: bool, now: datetime) -> Plan:
        """What there is to tell of a Service, or when to look again."""
        if matched:
            self.forget(key)
            return Plan()
        text = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
        known, since, told = self._since.get(key, ("", now, False))
        if known != text:
            since, told = now, False
        left = self.after_seconds - (now - since).total_seconds()
        self._since[key] = (text, since, told or left <= 0)
        if told:
            return Plan()
        if left > 0:
            return Plan(requeue_after=left)
        message = f"spec.selector: {text} matches no pod of the namespace, so that nobody answers for this Service"
        return Plan([Emit(NORMAL, REASON, message)])

    def forget(self, key: str) -> None:
        """The Service has pods, or is no more."""
        self._since.pop(key, None)

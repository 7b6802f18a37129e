"""The audit log: who did what, as much of it as a policy asks for (audit.k8s.io/v1).

A policy is a list of rules; the first that fits a request says how much is written about it: nothing, the request's
metadata, its body too, or also the answer's. One JSON line an event, appended to a file that is rotated by size.
Lines are written by one thread, so that a slow disk delays no request; if it can't keep up, lines are dropped and
counted, never the requests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from services.apiserver.request import User

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
PENDING_LINES_MAX = 10_000
_STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class PolicyError(Exception):
    """The policy file can't be used; one line that says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked for, as rules match it."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    level: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    namespaces: frozenset[str] | None = None
    resources: tuple[Mapping[str, Any], ...] = ()
    urls: tuple[str, ...] = ()
    omit: frozenset[str] = field(default_factory=frozenset)

    def fits(self, asked: Asked) -> bool:
        if self.users and asked.user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(asked.user.groups):
            return False
        if self.verbs and asked.verb not in self.verbs:
            return False
        if not asked.resource:
            return bool(self.urls and _url_fits(self.urls, asked.path)) or not (
                self.urls or self.resources or self.namespaces
            )
        if self.urls:
            return False
        if self.namespaces is not None and asked.namespace not in self.namespaces:
            return False
        return not self.resources or any(_resource_fits(wanted, asked) for wanted in self.resources)


def _url_fits(urls: Sequence[str], path: str) -> bool:
    return any(path.startswith(url[:-1]) if url.endswith("*") else path == url for url in urls)


def _resource_fits(wanted: Mapping[str, Any], asked: Asked) -> bool:
    if (wanted.get("group") or "") != asked.group:
        return False
    names = wanted.get("resources")
    full = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    known = (full, "*", f"{asked.resource}/*", f"*/{asked.subresource}")
    if names and not any(name in names for name in known):
        return False
    return not wanted.get("resourceNames") or asked.name in wanted["resourceNames"]


class Policy:
    """Which requests are written down, and how much of each."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        if document.get("kind") != "Policy" or not str(document.get("apiVersion", "")).startswith("audit.k8s.io/"):
            raise PolicyError('not an audit policy: kind must be "Policy" and apiVersion "audit.k8s.io/v1"')
        self._omit = frozenset(document.get("omitStages") or ())
        self._rules = [self._rule(index, raw) for index, raw in enumerate(document.get("rules") or ())]

    @classmethod
    def from_file(cls, path: Path | str) -> Policy:
        """A policy in YAML. Raises PolicyError."""
        try:
            document = yaml.safe_load(Path(path).read_bytes())
        except OSError as error:
            raise PolicyError(f"{path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise PolicyError(f"{path}: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict):
            raise PolicyError(f"{path}: not a mapping")
        return cls(document)

    def _rule(self, index: int, raw: Mapping[str, Any]) -> _Rule:
        level = raw.get("level")
        if level not in LEVELS:
            raise PolicyError(f"rules[{index}].level: {level!r} is not one of {', '.join(LEVELS)}")
        omit = frozenset(raw.get("omitStages") or ()) | self._omit
        if not omit <= set(_STAGES):
            raise PolicyError(f"rules[{index}].omitStages: known stages are {', '.join(_STAGES)}")
        namespaces = raw.get("namespaces")
        return _Rule(
            level,
            frozenset(raw.get("users") or ()),
            frozenset(raw.get("userGroups") or ()),
            frozenset(raw.get("verbs") or ()),
            None if namespaces is None else frozenset(namespaces),
            tuple(raw.get("resources") or ()),
            tuple(raw.get("nonResourceURLs") or ()),
            omit,
        )

    def level_of(self, asked: Asked, stage: str = "ResponseComplete") -> str:
        """How much is written about a request at a stage. What no rule names is not written."""
        for rule in self._rules:
            if rule.fits(asked):
                return "None" if stage in rule.omit else rule.level
        return "None"


class AuditFile:
    """Appends lines to a file and rotates it. `dropped` counts lines that the disk was too slow for."""

    def __init__(self, path: Path | str, *, bytes_max: int = 100 * 1024 * 1024, backups: int = 5) -> None:
        self._path = Path(path)
        self._bytes_max = bytes_max
        self._backups = backups
        self._pending: queue.Queue[bytes | None] = queue.Queue(PENDING_LINES_MAX)
        self.dropped = 0
        self._file = self._path.open("ab")
        self._thread = threading.Thread(target=self._run, name="audit log", daemon=True)
        self._thread.start()

    def write(self, event: Mapping[str, Any]) -> None:
        """Write one event, sooner or later."""
        try:
            self._pending.put_nowait(orjson.dumps(event) + b"\n")
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is pending and close."""
        self._pending.put(None)
        self._thread.join(5)
        self._file.close()

    def _run(self) -> None:
        while (line := self._pending.get()) is not None:
            try:
                self._file.write(line)
                if self._pending.empty():
                    self._file.flush()
                if self._file.tell() > self._bytes_max:
                    self._rotate()
            except OSError:
                # A full disk must not end the log for good: this line is lost, the next is tried.
                self.dropped += 1
        self._file.flush()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._backups - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.rename(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("ab")

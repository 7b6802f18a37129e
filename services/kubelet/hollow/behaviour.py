"""What a simulated container does. Pure: from annotations and command to times and an exit code.

Annotations of the pod, for all of its containers, or with `.NAME` appended for one:

    hollow.cutaway.dev/start-delay    seconds that its start takes (0)
    hollow.cutaway.dev/run-seconds    seconds after which it ends by itself (never; an init container: at once)
    hollow.cutaway.dev/exit-code      with this code (0)
    hollow.cutaway.dev/stop-seconds   seconds that it takes to end when it is told to (0)
    hollow.cutaway.dev/readiness      `fail`: its readiness probe fails; a number: it fails for that many seconds
    hollow.cutaway.dev/liveness, …/startup   the same for these probes
    hollow.cutaway.dev/cpu, …/memory  what it uses (100m or its request, 64Mi or its request)

Without annotations, a command that says how it ends is believed: `true`, `false`, `sleep N`, `sh -c "… exit N"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREFIX = "hollow.cutaway.dev/"
_EXIT = re.compile(r"(?:^|[;&|\s])exit\s+(\d+)\s*$")
_SLEEP = re.compile(r"(?:^|[;&|\s])sleep\s+(\d+(?:\.\d+)?)\b")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds and an exit code; `run_seconds` None is for ever."""

    start_delay: float = 0.0
    run_seconds: float | None = None
    exit_code: int = 0
    stop_seconds: float = 0.0


def setting(annotations: Mapping[str, str], name: str, container: str) -> str | None:
    """An annotation's value, the container's own before the pod's."""
    own = annotations.get(f"{PREFIX}{name}.{container}")
    return annotations.get(PREFIX + name) if own is None else own


def _number(text: str | None, default: float | None) -> float | None:
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        return default


def behaviour(annotations: Mapping[str, str], container: str, kind: str, command: Sequence[str]) -> Behaviour:
    """What the container does."""
    seconds, code = _by_command(command)
    if kind == "init" and seconds is None:
        seconds = 0.0
    if kind == "sidecar":
        seconds = None
    run = _number(setting(annotations, "run-seconds", container), seconds)
    exit_code = _number(setting(annotations, "exit-code", container), code)
    return Behaviour(
        _number(setting(annotations, "start-delay", container), 0.0) or 0.0,
        run,
        int(exit_code or 0),
        _number(setting(annotations, "stop-seconds", container), 0.0) or 0.0,
    )


def _by_command(command: Sequence[str]) -> tuple[float | None, int]:
    words = [word for word in command if word]
    if not words:
        return None, 0
    program = words[0].rpartition("/")[2]
    if program == "true":
        return 0.0, 0
    if program == "false":
        return 0.0, 1
    if program == "sleep" and len(words) > 1:
        return _number(words[1], None), 0
    script = words[-1] if program in ("sh", "bash", "ash") and len(words) > 2 else ""
    if not script or "while" in script:
        return None, 0
    ended = _EXIT.search(script.strip())
    slept = sum(float(match[1]) for match in _SLEEP.finditer(script))
    if ended:
        return slept, int(ended[1])
    return (slept, 0) if slept or script.startswith("echo") else (None, 0)


def probe_fails(annotations: Mapping[str, str], kind: str, container: str, age_seconds: float) -> bool:
    """Whether a probe of that kind fails at that age of the container."""
    value = setting(annotations, kind, container)
    if value is None:
        return False
    if value == "fail":
        return True
    return age_seconds < (_number(value, 0.0) or 0.0)

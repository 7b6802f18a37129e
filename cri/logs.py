"""Logs of the shim: a constant message and key-values, as JSON lines on stderr.

The same lines as the other components', which take them from structlog; that package and what it imports would be an
eighth of this process's memory, and there is one of these processes on every node.
"""

import datetime
import json
import sys
import traceback
from typing import Any

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_threshold = _LEVELS["info"]


def configure(level: str) -> None:
    """Shows messages of this level and above; an unknown level is `info`."""
    global _threshold
    _threshold = _LEVELS.get(level.lower(), _LEVELS["info"])


class Logger:
    def debug(self, event: str, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write("error", event, {**fields, "exception": traceback.format_exc()})

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if _LEVELS[level] < _threshold:
            return
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = json.dumps({**fields, "event": event, "level": level, "timestamp": at}, default=str)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


log = Logger()

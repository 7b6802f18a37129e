"""Structured logs: a constant message plus key-values, as JSON lines or for a person's eyes, on stderr.

`log = logs.get("controller")`, then `log.info("queue resumed", controller=name, depth=3)`. Log an error once, where it
is handled; info is for changes of state. Libraries that use the standard `logging` come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec

# structlog loads rich, where it is installed, to draw tracebacks that we don't use: a third of the time that all other
# imports of a small component take, and 6 MB in every process.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

# Everybody binds context through here, so that nobody loads structlog, and rich with it, before this module does.
contextvars = structlog.contextvars

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_encoder = msgspec.json.Encoder(enc_hook=str)


def _json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    ordered = {"time": event.pop("time", ""), "level": event.pop("level", ""), "msg": event.pop("event", "")}
    ordered.update(event)
    return _encoder.encode(ordered).decode("utf-8", "replace")


def setup(component: str, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (stderr). Call it once, before the first line. Raises ValueError."""
    if level not in _LEVELS:
        raise ValueError(f"log_level: {level!r} is not one of {', '.join(_LEVELS)}")
    if format not in ("auto", "json", "console"):
        raise ValueError(f"log_format: {format!r} is not one of auto, json, console")
    stream = stream or sys.stderr
    console = format == "console" or (format == "auto" and stream.isatty())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time" if not console else "timestamp"),
    ]
    if console:
        processors += [structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=32)]
    else:
        processors += [structlog.processors.format_exc_info, _json]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    if component:
        structlog.contextvars.bind_contextvars(component=component)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(max(_LEVELS[level], logging.INFO))


class _Forward(logging.Handler):
    """Hands records of the standard library's logging on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = {"module": record.name}
        if record.exc_info:
            values["exc_info"] = record.exc_info
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        method = getattr(structlog.get_logger(), level, structlog.get_logger().info)
        method(record.getMessage(), **values)


def get(name: str = "", **values: Any) -> Any:
    """A logger whose lines all carry `module=name` and the given values."""
    if name:
        values["module"] = name
    return structlog.get_logger(**values)

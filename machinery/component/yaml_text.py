"""YAML of configurations and manifests by libyaml where PyYAML has it: a tenth of what its own parser and emitter take,
and a component starts with some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    """What one document says. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # nosec B506 - a safe loader
    except yaml.YAMLError:
        # PyYAML's own parser says better what was expected, and where.
        return yaml.safe_load(text)


def load_all(text: str) -> Iterator[Any]:
    """What each document says. Raises yaml.YAMLError as it is reached."""
    return yaml.load_all(text, Loader=_Loader)  # nosec B506 - a safe loader


def dump(value: Any) -> str:
    """As a document, keys in the order in which they stand."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False)
    return text

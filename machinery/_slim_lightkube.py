"""Importing a model module without the HTTP client that its package would bring along.

`lightkube/__init__.py` imports lightkube's own client with httpx and all: 115 ms and 16 MB in every process that only
wants `lightkube.models.core_v1`. Here the package is put in place without running that file; it runs when somebody
asks the package for a name.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any


class _Unrun(types.ModuleType):
    """A package whose `__init__.py` has not been run yet."""

    def __getattr__(self, name: str) -> Any:
        # The import system probes for dunder attributes; they are no reason to run anything.
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Put the package in place, unless it was imported already or is not there."""
    if "lightkube" in sys.modules:
        return
    spec = importlib.util.find_spec("lightkube")
    if spec is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Unrun
    sys.modules["lightkube"] = module

"""/livez, /readyz and /healthz: named checks, each to be asked for alone, all of them with ?verbose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from services.apiserver.rest.paths import Query, is_true
from services.apiserver.rest.responses import text_response

# A check answers "" when all is well, else what is wrong.
Check = Callable[[], str]
_ENDPOINTS = ("livez", "readyz", "healthz")


class Health:
    """The three endpoints. `ready` checks count only for /readyz."""

    def __init__(self, live: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        self._live = {"ping": _ok, "log": _ok, **live}
        self._ready = {**self._live, **ready}
        self.stopping = False

    def serves(self, path: str) -> bool:
        """Whether `path` is one of these endpoints or below one."""
        return path.strip("/").partition("/")[0] in _ENDPOINTS

    def answer(self, path: str, query: Query) -> web.Response:
        """The answer in upstream's words."""
        endpoint, _, name = path.strip("/").partition("/")
        checks = self._ready if endpoint == "readyz" else self._live
        if name:
            if name not in checks:
                return text_response("404 page not found\n", 404)
            checks = {name: checks[name]}
        excluded = set(query.get("exclude", ()))
        lines, failed = [], []
        for check, judge in checks.items():
            if check in excluded:
                lines.append(f"[+]{check} excluded: ok")
                continue
            wrong = judge()
            if wrong:
                failed.append(check)
                lines.append(f"[-]{check} failed: {wrong}")
            else:
                lines.append(f"[+]{check} ok")
        if endpoint == "readyz" and not name:
            lines.append("[-]shutdown failed: stopping" if self.stopping else "[+]shutdown ok")
            if self.stopping:
                failed.append("shutdown")
        if failed:
            return text_response("\n".join([*lines, f"{endpoint} check failed", ""]), 500)
        if is_true(query, "verbose"):
            return text_response("\n".join([*lines, f"{endpoint} check passed", ""]))
        return text_response("ok")


def _ok() -> str:
    return ""

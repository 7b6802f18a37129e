"""/livez, /readyz and /healthz: named checks, each to be asked for alone, all of them with ?verbose.

Upstream: k8s.io/apiserver/pkg/server/healthz. What is wrong is told only to who may ask for a check alone; everybody
else learns which check failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from machinery.component import logs
from services.apiserver.rest.paths import Query
from services.apiserver.rest.responses import text_response

log = logs.get("health")

Check = Callable[[], Awaitable[str]]
"""Answers "" when all is well, else what is wrong."""
_ENDPOINTS = ("livez", "readyz", "healthz")


class Health:
    """The three endpoints. `ready` checks count only for /readyz, and so does that the server is not about to stop."""

    def __init__(self, live: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        self._live: dict[str, Check] = {"ping": _ok, "log": _ok, **live}
        self._ready: dict[str, Check] = {**self._live, **ready, "shutdown": self._not_stopping}
        self.stopping = False

    def serves(self, path: str) -> bool:
        """Whether `path` is one of these endpoints or below one."""
        return path.strip("/").partition("/")[0] in _ENDPOINTS

    def paths(self) -> list[str]:
        """Every path that is served."""
        served = {"livez": self._live, "readyz": self._ready, "healthz": self._live}
        return [path for end, checks in served.items() for path in (f"/{end}", *(f"/{end}/{name}" for name in checks))]

    async def answer(self, path: str, query: Query) -> web.Response:
        """The answer in upstream's words."""
        endpoint, _, name = path.strip("/").partition("/")
        checks = self._ready if endpoint == "readyz" else self._live
        if name:
            if name not in checks:
                return text_response("404 page not found\n", 404)
            wrong = await checks[name]()
            return text_response(f"internal server error: {wrong}\n", 500) if wrong else text_response("ok")
        excluded = dict.fromkeys(query.get("exclude", ()))
        lines, failed = [], {}
        for check, judge in checks.items():
            if check in excluded:
                del excluded[check]
                lines.append(f"[+]{check} excluded: ok")
            elif wrong := await judge():
                failed[check] = wrong
                lines.append(f"[-]{check} failed: reason withheld")
            else:
                lines.append(f"[+]{check} ok")
        if excluded:
            names = ", ".join(f'"{unknown}"' for unknown in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if failed:
            log.info("a health check failed", endpoint=endpoint, failed=failed)
            return text_response("\n".join([*lines, f"{endpoint} check failed", ""]), 500)
        if "verbose" in query:
            return text_response("\n".join([*lines, f"{endpoint} check passed", ""]))
        return text_response("ok")

    async def _not_stopping(self) -> str:
        return "process is shutting down" if self.stopping else ""


async def _ok() -> str:
    return ""

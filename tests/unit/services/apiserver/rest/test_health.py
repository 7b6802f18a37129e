"""Health checks in upstream's words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.apiserver.rest.health import Check, Health


def saying(problem: str) -> Check:
    async def check() -> str:
        return problem

    return check


def health(**ready: str) -> Health:
    checks: Mapping[str, Check] = {name: saying(problem) for name, problem in ready.items()}
    return Health({"etcd": saying("")}, checks)


async def asked(judged: Health, path: str, **query: list[str]) -> tuple[int, str]:
    answer = await judged.answer(path, query)
    assert isinstance(answer.body, bytes)
    return answer.status, answer.body.decode()


async def test_all_is_well() -> None:
    assert await asked(health(sync=""), "/readyz") == (200, "ok")
    lines = "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]sync ok\n[+]shutdown ok\nreadyz check passed\n"
    assert await asked(health(sync=""), "/readyz", verbose=[""]) == (200, lines)
    assert await asked(health(sync=""), "/livez", verbose=[""]) == (
        200,
        "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n",
    )


async def test_what_fails_is_named_and_why_is_told_only_alone() -> None:
    status, text = await asked(health(sync="revision 3, not 5"), "/readyz")
    assert (status, text.splitlines()[3:]) == (
        500,
        ["[-]sync failed: reason withheld", "[+]shutdown ok", "readyz check failed"],
    )
    assert await asked(health(sync="revision 3, not 5"), "/readyz/sync") == (
        500,
        "internal server error: revision 3, not 5\n",
    )
    assert await asked(health(sync="revision 3, not 5"), "/livez") == (200, "ok")


async def test_checks_are_left_out() -> None:
    assert await asked(health(sync="not yet"), "/readyz", exclude=["sync"]) == (200, "ok")
    status, text = await asked(health(), "/livez", exclude=["etcd", "x", "y"], verbose=[""])
    assert (status, text.splitlines()[2:]) == (
        200,
        [
            "[+]etcd excluded: ok",
            'warn: some health checks cannot be excluded: no matches for "x", "y"',
            "livez check passed",
        ],
    )


@pytest.mark.parametrize(("name", "status"), [("ping", 200), ("etcd", 200), ("shutdown", 404), ("nonsense", 404)])
async def test_one_alone(name: str, status: int) -> None:
    assert (await asked(health(), f"/livez/{name}"))[0] == status


async def test_a_server_that_stops_is_live_and_not_ready() -> None:
    stopping = health()
    stopping.stopping = True
    assert (await asked(stopping, "/livez"))[0] == 200
    assert (await asked(stopping, "/readyz"))[0] == 500
    assert (await asked(stopping, "/readyz/shutdown"))[0] == 500

"""Logs of the node's services: what may be asked, what is answered, and that nothing outside the directory is."""

import os
from pathlib import Path

import pytest

from machinery.api import errors
from services.kubelet.node_logs import LogQuery, NodeLogs, journal_command, parse


async def text(logs: NodeLogs, path: str = "/", **query: str) -> str:
    _, chunks = await logs.answer(path, {name: [value] for name, value in query.items()})
    return b"".join([chunk async for chunk in chunks]).decode()


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeLogs:
    monkeypatch.setattr("services.kubelet.node_logs.shutil.which", lambda _name: None)
    root = tmp_path / "log"
    (root / "web").mkdir(parents=True)
    (root / "kubelet-n1.log").write_text("one\nTwo failed\nthree\nfour FAILED\n")
    (root / "web" / "web.log").write_text("web\n")
    (tmp_path / "secret").write_text("secret")
    return NodeLogs(str(root), "n1")


async def test_a_service_is_found_by_name_with_the_last_lines_or_those_that_match(logs: NodeLogs) -> None:
    assert (await text(logs, query="kubelet")).startswith("one\nTwo")
    assert await text(logs, query="kubelet", tailLines="1") == "four FAILED\n"
    assert await text(logs, query="kubelet", pattern="fail(ed)?$") == "Two failed\nfour FAILED\n"
    assert await text(logs, query="kubelet", pattern="failed", tailLines="1") == "four FAILED\n"
    assert await text(logs, query="kubelet", tailLines="0") == ""
    assert await text(logs, query="web") == "web\n"
    assert "log not found for nothing" in await text(logs, query="nothing")


async def test_files_and_directories(logs: NodeLogs) -> None:
    assert '<a href="kubelet-n1.log">kubelet-n1.log</a>' in await text(logs)
    assert '<a href="web/">web/</a>' in await text(logs)
    assert await text(logs, "/web/web.log") == "web\n"
    assert await text(logs, query="/web/web.log") == "web\n"


async def test_nothing_outside_the_directory_is_read(logs: NodeLogs, tmp_path: Path) -> None:
    root = tmp_path / "log"
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "own").symlink_to("web/web.log")
    os.mkfifo(root / "fifo")
    for path in ("/link", "/up/secret", "/fifo", "/none"):
        with pytest.raises(errors.NotFound):
            await text(logs, path)
    with pytest.raises(errors.BadRequest):
        await text(logs, "/../secret")
    assert await text(logs, "/own") == "web\n"
    assert "log not found" in await text(logs, query="link")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"query": [" "]}, "query: must not be empty"),
        ({"query": ["a/b", "kubelet"]}, "not both"),
        ({"query": ["kubelet; rm"]}, "not the name of a service"),
        ({"query": ["a/b"], "tailLines": ["1"]}, "takes no other"),
        ({"query": ["k"], "tailLines": ["-1"]}, "tailLines: -1"),
        ({"query": ["k"], "tailLines": ["x"]}, "tailLines: 'x'"),
        ({"query": ["k"], "boot": ["1"]}, "boot: 1"),
        ({"query": ["k"], "pattern": ["("]}, "pattern: '\\('"),
        ({"query": ["k"], "sinceTime": ["yesterday"]}, "sinceTime"),
        (
            {"query": ["k"], "sinceTime": ["2026-01-02T00:00:00Z"], "untilTime": ["2026-01-01T00:00:00Z"]},
            "untilTime: must be after",
        ),
    ],
)
def test_a_wrong_parameter_is_named(query: dict[str, list[str]], word: str) -> None:
    with pytest.raises(errors.BadRequest, match=word):
        parse(query)


def test_journald_is_asked_for_exactly_that() -> None:
    query = parse(
        {
            "query": ["kubelet"], "sinceTime": ["2026-01-01T10:00:00Z"], "tailLines": ["5"], "pattern": ["err"],
            "boot": ["-1"],
        }
    )  # fmt: skip
    assert isinstance(query, LogQuery)
    assert journal_command(query, "journalctl") == [
        "journalctl", "--utc", "--no-pager", "--output=short-precise", "--since=2026-01-01 10:00:00", "--pager-end",
        "--lines=5", "--unit=kubelet", "--grep=err", "--case-sensitive=false", "--boot", "-1",
    ]  # fmt: skip


async def test_what_journald_has_comes_from_there(
    logs: NodeLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text('#!/bin/sh\ncase "$*" in *--unit=kubelet*) echo journal;; *) echo "-- No entries --";; esac\n')
    program.chmod(0o755)
    monkeypatch.setattr("services.kubelet.node_logs.shutil.which", lambda _name: str(program))
    assert await text(logs, query="kubelet") == "journal\n"
    assert await text(logs, query="web") == "web\n"

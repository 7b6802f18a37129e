"""How a component's process ends: its exit code, its last line, and how long it takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAD = """
import asyncio, sys
from machinery.component import config, process
class Config(config.ComponentConfig): pass
"""


def start(body: str, *flags: str) -> subprocess.Popen[str]:
    code = HEAD + body + '\nprocess.run(serve, config.load(Config, sys.argv[1:], "part"))\n'
    argv = [sys.executable, "-c", code, "--name", "part", "--log-format", "json", *flags]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_sigterm_closes_the_parts_in_reverse_and_exits_with_zero() -> None:
    process = start("""
async def serve(ctx):
    async def close(name): print("closed", name, flush=True)
    ctx.on_stop(lambda: close("first"))
    ctx.on_stop(lambda: close("second"))
    ctx.tasks.create_task(asyncio.Event().wait(), name="for ever")
    print("ready", flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "closed second\nclosed first\n")
    assert '"msg":"stopped"' in err


def test_a_part_that_hangs_does_not_hold_the_process_for_longer_than_its_deadline() -> None:
    process = start(
        """
async def serve(ctx):
    async def hang(): await asyncio.Event().wait()
    ctx.on_stop(hang)
    print("ready", flush=True)
""",
        "--drain-seconds", "0.3",
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ('async def serve(ctx): raise process.Fatal("port 1 is taken")', 2, "part: port 1 is taken"),
        ('async def serve(ctx): raise process.Ended("lease lost")', 1, '"msg":"process ends"'),
        (
            'async def serve(ctx):\n    async def f(): raise ValueError("odd")\n    ctx.tasks.create_task(f())',
            1,
            "ValueError: odd",
        ),
    ],
)
def test_failures_have_their_codes_and_one_line(body: str, code: int, line: str) -> None:
    process = start(body)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert line in err
    if code == 2:
        assert err == "part: port 1 is taken\n"

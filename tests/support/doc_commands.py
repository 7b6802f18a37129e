"""The commands that the documentation shows, taken out of its pages so that tests can run them.

Every block of shell in a page is preceded by a comment that says where it is run:

    <!-- run: hollow -->            against a cluster of simulated nodes
    <!-- run: node -->              against a cluster with a real node
    <!-- run: elsewhere, WHY -->    by another test, or never, for this reason

A line that begins with `$ ` begins a command; one that ends with a backslash goes on in the next line. What else stands
in a block is what the command printed, and is not compared.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab_cluster import ROOT

WHERE = ("hollow", "node", "elsewhere")
COMMAND_SECONDS = 120
# Commands that answer by their exit code as well: 1 says that something is not as desired.
EXIT_CODES = {"cutaway explain": (0, 1)}
_BLOCK = re.compile(
    r"(?:<!-- run: (?P<where>[a-z]+)(?:, (?P<why>[^>]+))? -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```", re.M | re.S
)
_SHELL = ("console", "sh", "bash", "shell")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands. `where` is empty if the page does not say."""

    page: Path
    line: int
    where: str
    why: str
    commands: tuple[str, ...]


def pages() -> list[Path]:
    """Every page of the documentation, and the README."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of shell in a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found["where"] or "",
            found["why"] or "",
            _commands(found["body"]),
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in _SHELL
    ]


def _commands(body: str) -> tuple[str, ...]:
    joined = body.replace("\\\n", " ")
    return tuple(line[2:].split("   #")[0].strip() for line in joined.splitlines() if line.startswith("$ "))


def pages_with(where: str) -> list[Path]:
    """The pages that have commands to be run there."""
    return [page for page in pages() if any(block.where == where for block in blocks(page))]


def page_name(page: Path) -> str:
    """How a page is called in the name of a test."""
    return str(page.relative_to(ROOT))


def run(page: Path, where: str, environment: dict[str, str]) -> None:
    """Run a page's commands for this place, in order, as a reader would type them; the first that fails ends it.

    Raises AssertionError with the command, its place in the page, and what it printed.
    """
    programs = Path(sys.executable).parent
    environment = environment | {"PATH": f"{programs}:{environment['PATH']}"}
    for block in blocks(page):
        for command in block.commands if block.where == where else ():
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
            place = f"{page_name(page)}:{block.line}"
            assert done.returncode in EXIT_CODES.get(" ".join(command.split()[:2]), (0,)), (
                f"{place}: `{command}` ended with {done.returncode}\n{done.stdout}{done.stderr}"
            )

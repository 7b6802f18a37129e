"""The documentation names files; they must exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "protos",
    "machinery",
    "storage",
    "services",
    "cri",
    "lab",
    "deploy",
    "examples",
    "tests",
    "docs",
    "benchmarks",
)
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
LINK = re.compile(r"\]\((?!https?:)([\w./-]+)(?:#[\w-]*)?\)")


def _pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page):
    missing = [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not missing


TESTS = re.compile(r"`((?:unit|contract|integration|e2e|torture)/[\w./-]*)`")


@pytest.mark.parametrize("page", ["features", "reliability", "security"])
def test_every_test_that_a_table_names_exists(page):
    text = (ROOT / f"docs/{page}.md").read_text()
    missing = [path for path in TESTS.findall(text) if not (ROOT / "tests" / path).exists()]
    assert not missing


def test_the_pages_build_into_a_site(tmp_path):
    # Strict: a page outside the navigation, or a link or anchor that leads nowhere, is an error.
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "first-ten-minutes" / "index.html").exists()

"""The generated Python beside the contracts is what the generator makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from protos.generate import ROOT, generate


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    written = generate(tmp_path)
    stale = [str(path) for path in written if (ROOT / path).read_bytes() != (tmp_path / path).read_bytes()]
    assert stale == [], "run `python -m protos.generate` and commit the result"

"""The store's own command, as `lab.backup` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import backup
from lab.errors import LabError


def test_a_command_that_goes_on_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpreter alone takes longer to start.
    monkeypatch.setattr(backup, "COPY_SECONDS", 0.001)
    with pytest.raises(LabError, match="verify was ended: it took longer"):
        backup._run("verify", f"sqlite:///{tmp_path / 'state.db'}")


def test_what_the_command_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"state\.db"):
        backup._run("verify", f"sqlite:///{tmp_path / 'state.db'}")

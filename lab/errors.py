"""Errors that a person sees: what is wrong in one line, and the way out."""

from __future__ import annotations


class LabError(Exception):
    """Something that the user can do something about. `way_out` says what."""

    exit_code = 1

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message)
        self.way_out = way_out

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.way_out}" if self.way_out else message

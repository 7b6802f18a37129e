"""`python -m services.apiserver.sealed_with FILE`: the names of the keys that anything in a back-up is sealed with, one
a line. Asked before a restore, which needs those keys.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from services.apiserver.encryption import SEALED_RESOURCES, key_name


def key_names(file: Path) -> set[str]:
    """Of a back-up, history included. Raises sqlite3.Error."""
    found = set()
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        for resource in sorted(SEALED_RESOURCES):
            for (value,) in connection.execute("SELECT value FROM event_log WHERE resource = ?", (resource,)):
                found.add(key_name(bytes(value)))
    return {name for name in found if name}


def main() -> int:
    """Exit code."""
    try:
        print("\n".join(sorted(key_names(Path(sys.argv[1])))))
    except sqlite3.Error as err:
        print(f"{sys.argv[1]}: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

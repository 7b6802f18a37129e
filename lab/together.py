"""`python -m lab.together FILE`: the components that a JSON file lists, in one process. For clusters inside tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from machinery.component import together


def main() -> None:
    """The file holds `[["services.apiserver", ["--config", "a.yaml"]], …]`."""
    together.run([(module, argv) for module, argv in json.loads(Path(sys.argv[1]).read_text())])


if __name__ == "__main__":
    main()

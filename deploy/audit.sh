#!/usr/bin/env bash
# Are there known vulnerabilities in what is installed? Asks PyPI's advisories; where they can't be reached it says so.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! .venv/bin/python - <<'END'
import json, sys, urllib.request
try:
    with urllib.request.urlopen("https://pypi.org/pypi/pip/9.0.1/json", timeout=20) as answer:
        sys.exit(not json.load(answer).get("vulnerabilities"))
except (OSError, ValueError):
    sys.exit(1)
END
then
  echo "pip-audit: not run, PyPI's advisories can't be reached from here"
  exit 0
fi
.venv/bin/pip freeze --exclude-editable > .venv/installed.txt
.venv/bin/pip-audit --requirement .venv/installed.txt --no-deps --disable-pip --progress-spinner off

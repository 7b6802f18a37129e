#!/usr/bin/env bash
# Every test, fast ones first; tests of real containers are skipped where this machine can't run them, and say so.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
run() { printf '\n== %s\n' "$1"; shift; "$@" || failed=1; }
run "lint, types, layers" deploy/check.sh
run "advisories" deploy/audit.sh
run "unit and contract tests" .venv/bin/python -m pytest -q tests/unit tests/contract
run "integration tests" .venv/bin/python -m pytest -q tests/integration
run "a tenth of what it must survive" .venv/bin/python -m pytest -q tests/torture
run "end-to-end tests" .venv/bin/python -m pytest -q tests/e2e
exit $failed

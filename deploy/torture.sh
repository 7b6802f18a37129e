#!/usr/bin/env bash
# What Cutaway must survive (docs/reliability.md), at full counts; each test prints its figure. Takes about an hour.
#   torture.sh [PYTEST ARGUMENTS]    such as -k killed
set -euo pipefail
cd "$(dirname "$0")/.."
export CUTAWAY_TORTURE=full
exec .venv/bin/python -m pytest -q -s -p no:cacheprovider --timeout 3600 -m torture tests "$@"

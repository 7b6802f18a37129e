#!/usr/bin/env bash
# What Cutaway must survive (docs/reliability.md), at full counts; each test prints its figure. Takes some hours.
#   torture.sh [PYTEST ARGUMENTS]    such as -k killed
#   CUTAWAY_TORTURE_PARTS=4 torture.sh …    a quarter of each count; four such runs are the whole
#   CUTAWAY_TORTURE_FIGURES=FILE            adds the figures to a file, too
#   CUTAWAY_CHURN_SECONDS=3600 CUTAWAY_CHURN_RATE=20 torture.sh -k flat    churn for another time, at so many writes/s
set -euo pipefail
cd "$(dirname "$0")/.."
export CUTAWAY_TORTURE=full
# Nodes run on Cutaway's own CRI server.
export CUTAWAY_TEST_RUNTIME=shim
exec .venv/bin/python -m pytest -q -s -p no:cacheprovider --timeout 3600 -m torture tests "$@"

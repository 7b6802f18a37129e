#!/usr/bin/env bash
# Lint, formatting, types and layers.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy machinery storage services cri lab
.venv/bin/lint-imports
.venv/bin/bandit --quiet --configfile pyproject.toml --recursive machinery storage services cri lab

#!/usr/bin/env bash
# Makes the image that deploy/Dockerfile starts from, for an engine that reaches no registry: Debian's packages by
# debootstrap, and Python's packages as wheels, so that the build itself needs no network.
#   local-base.sh NAME     e.g. cutaway-base:local; then `docker-compose build --build-arg BASE=cutaway-base:local`
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?the name to give the image}
deploy/compose/check.sh >/dev/null
work=$(mktemp -d "${TMPDIR:-/tmp}/cutaway-base-XXXXXX")
trap 'rm -rf "$work"' EXIT
packages=$(tr -s '\n' ',' < deploy/compose/packages.txt)

echo "  Debian 12 with ${packages%,}"
debootstrap --variant=minbase --include="${packages%,}" bookworm "$work/root" >"$work/log" 2>&1 \
  || { tail -5 "$work/log" >&2; exit 1; }
rm -rf "$work/root"/var/cache/apt/archives/*.deb "$work/root"/var/lib/apt/lists/* "$work/root"/usr/share/{doc,man,locale}/*
echo "  wheels for Python $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
# The build takes exactly these; Debian 12's Python is 3.11.
rm -rf deploy/compose/wheels
python3 -m pip download -qq --disable-pip-version-check --only-binary :all: --python-version 3.11 \
  -d deploy/compose/wheels -r <(python3 deploy/compose/requirements.py) setuptools wheel
tar -C "$work/root" -c . | docker import --change 'CMD ["/bin/sh"]' - "$name"

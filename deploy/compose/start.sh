#!/usr/bin/env bash
# Starts the compose lab and waits until every node of it is Ready; says how long that took: start.sh docker-compose …
set -euo pipefail
began=$(date +%s%N)
"$@" up -d --no-build 2>&1 | grep -vE '^(Creating|Starting|Recreating) |up-to-date' || [ "${PIPESTATUS[0]}" = 0 ]
# One program in a master asks; starting one for every question would keep the machine from starting the nodes.
ask='until [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -c " Ready ")" = 3 ]; do sleep 0.3; done'
if timeout 180 "$@" exec -T apiserver-1 sh -c "$ask" </dev/null; then
  took=$(( ($(date +%s%N) - began) / 100000000 ))
  echo "  three nodes are Ready, $((took / 10)).$((took % 10)) s after the first container was asked for"
  exit 0
fi
"$@" ps
echo "lab: the nodes were not Ready in time; '$* logs NAME' says why" >&2
exit 1

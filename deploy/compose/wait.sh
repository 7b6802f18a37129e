#!/usr/bin/env bash
# Waits until every node of the compose lab is Ready: wait.sh docker-compose …
set -euo pipefail
for _ in $(seq 180); do
  ready=$("$@" exec -T apiserver-1 kubectl get nodes --no-headers 2>/dev/null | grep -c ' Ready ' || true)
  [ "$ready" != 3 ] || { echo "  three nodes are Ready"; exit 0; }
  sleep 1
done
"$@" ps
echo "lab: the nodes were not Ready in time; 'docker-compose logs NAME' says why" >&2
exit 1

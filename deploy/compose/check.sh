#!/usr/bin/env bash
# Whether a Docker engine and Compose are here to start the lab; prints the command that is Compose: "docker-compose" or
# "docker compose". What is missing is told in one line, with the way out.
set -euo pipefail
fail() { echo "lab: $1" >&2; echo "     → $2" >&2; exit 1; }
command -v docker >/dev/null || fail "docker is not installed" "apt-get install docker.io docker-compose"
said=$(docker version --format '{{.Server.Version}}' 2>&1) \
  || fail "no Docker engine answers: ${said##*$'\n'}" "start it, or one beside everything else: deploy/compose/private-engine.sh start FOLDER; export DOCKER_HOST=unix://FOLDER/docker.sock"
if command -v docker-compose >/dev/null; then echo docker-compose
elif docker compose version >/dev/null 2>&1; then echo "docker compose"
else fail "Compose is not installed" "apt-get install docker-compose, or the plugin docker-compose-v2"
fi

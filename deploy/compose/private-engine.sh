#!/usr/bin/env bash
# A Docker engine of its own, beside whatever else is on this machine: in a network and a mount namespace, so that its
# firewall, bridges and mounts are nobody else's, with its images below one folder.
#   private-engine.sh start FOLDER   then DOCKER_HOST=unix://FOLDER/docker.sock; `enter FOLDER CMD…` runs in its network
#   private-engine.sh stop FOLDER    ends it; the images stay in FOLDER/data
set -euo pipefail
verb=${1:?start, stop or enter} folder=$(realpath -m "${2:?a folder}")
pid() { cat "$folder/holder.pid" 2>/dev/null; }
inside() { nsenter --net="/proc/$(pid)/ns/net" --mount="/proc/$(pid)/ns/mnt" -- "$@"; }

case "$verb" in
start)
  command -v dockerd >/dev/null || { echo "private-engine: dockerd is not installed: apt-get install docker.io" >&2; exit 1; }
  mkdir -p "$folder"
  # What holds the namespaces; the engine may end and start again in them.
  [ -e "/proc/$(pid || echo none)" ] || { setsid unshare --net --mount --propagation private sleep infinity </dev/null >/dev/null 2>&1 & echo $! > "$folder/holder.pid"; }
  for _ in $(seq 100); do [ "$(readlink "/proc/$(pid)/ns/net")" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.05; done
  inside ip link set lo up
  inside sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  # In the engine's own namespace nothing of the host's containerd is found, so it brings one of its own.
  setsid nsenter --net="/proc/$(pid)/ns/net" --mount="/proc/$(pid)/ns/mnt" -- dockerd \
    --data-root "$folder/data" --exec-root "$folder/run" --pidfile "$folder/docker.pid" \
    --host "unix://$folder/docker.sock" --group root ${ENGINE_OPTIONS:-} </dev/null >"$folder/log" 2>&1 &
  for _ in $(seq 300); do
    docker -H "unix://$folder/docker.sock" version >/dev/null 2>&1 && exit 0
    sleep 0.1
  done
  tail -5 "$folder/log" >&2; exit 1 ;;
stop)
  engine=$(cat "$folder/docker.pid" 2>/dev/null || true)
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    for _ in $(seq 300); do [ -e "/proc/$engine" ] || break; sleep 0.1; done
  fi
  if [ "${3:-}" != --keep ] && [ -n "$(pid)" ]; then
    kill "$(pid)" 2>/dev/null || true
    rm -f "$folder/holder.pid"
  fi ;;
enter) shift 2; inside "$@" ;;
*) echo "private-engine: start, stop or enter" >&2; exit 2 ;;
esac

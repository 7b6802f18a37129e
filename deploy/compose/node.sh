#!/bin/bash
# A node of the compose lab: containerd, shim, kubelet, proxy, DNS and ingress under one supervisor. As process 1 it also reaps
# what containers leave behind.
set -euo pipefail
home=/var/lib/cutaway
# What a machine loses when it restarts, a container has kept: sockets, and the state of containers that are gone.
rm -rf "$home"/run/* "$home"/nodes/*/run/* "$home"/nodes/*/containerd/state "$home"/nodes/*/cri/state
rm -f "$home"/components/*.state.json
# Without `privileged` the engine lays read-only and empty mounts over parts of /proc and /sys.
for point in $(awk '$5 ~ "^/proc/" { print $5 }' /proc/self/mountinfo | tac); do umount "$point" || true; done
mount -o remount,rw /sys 2>/dev/null || true
mkdir -p /sys/fs/cgroup/cutaway-probe 2>/dev/null || mkdir -p /sys/fs/cgroup/memory/cutaway-probe 2>/dev/null \
  || { echo "node: /sys/fs/cgroup can't be written: the engine gives this container no cgroups of its own"; sleep 5; exit 1; }
rmdir /sys/fs/cgroup/cutaway-probe /sys/fs/cgroup/memory/cutaway-probe 2>/dev/null || true
# Volumes of pods must be seen in their containers.
mount --make-rshared /
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  # On cgroup v2 a group with processes of its own can't hand out controllers: they move into one beside the pods'.
  mkdir -p /sys/fs/cgroup/init
  xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
  sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control || true
fi
echo 1 > /proc/sys/net/ipv4/ip_forward 2>/dev/null || true
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || true
stop() {
  python -c "from lab import supervisor_client as s; from pathlib import Path; s.call(Path('$home'), 'shutdown')" || true
}
trap stop TERM INT
python -m lab.supervisor "$home" &
supervisor=$!
while kill -0 "$supervisor" 2>/dev/null; do wait "$supervisor" || true; done

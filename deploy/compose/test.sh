#!/usr/bin/env bash
# The notes' story on the compose lab: test.sh docker-compose …
set -euo pipefail
say() { echo "  $*"; }
fail() { echo "lab-test: $*" >&2; exit 1; }
kubectl() { "${compose[@]}" exec -T apiserver-2 kubectl "$@"; }
answers() {  # how many of 20 requests through the Service, from a node, were answered
  "${compose[@]}" exec -T node1 python -c '
import sys, urllib.request
good = 0
for _ in range(20):
    try:
        good += b"hello" in urllib.request.urlopen(sys.argv[1], timeout=5).read()
    except OSError as error:
        print(error, file=sys.stderr)
print(good)' "$1"
}
compose=("$@")

archive=$(mktemp "${TMPDIR:-/tmp}/cutaway-web-XXXXXX.tar")
trap 'rm -f "$archive"' EXIT
.venv/bin/python deploy/compose/web_image.py "$archive"
for node in node1 node2 node3; do
  "${compose[@]}" exec -T "$node" sh -c 'cat > /tmp/web.tar' < "$archive"
  "${compose[@]}" exec -T "$node" python -m cri.images.load \
    --socket "/var/lib/cutaway/nodes/$node/run/containerd.sock" /tmp/web.tar >/dev/null
done
say "the example's image is on every node"
kubectl apply -f examples/web.yaml >/dev/null
kubectl rollout status deployment/nginx-deployment --timeout=120s
url=http://10.198.0.11:30007
[ "$(answers $url)" = 20 ] || fail "the Service did not answer every request"
say "20 of 20 requests through the Service were answered"

"${compose[@]}" kill -s SIGKILL apiserver-1 >/dev/null 2>&1
say "apiserver-1 was killed"
[ "$(answers $url)" = 20 ] || fail "the Service did not answer every request without apiserver-1"
say "20 of 20 requests were answered meanwhile"
kubectl scale deployment/nginx-deployment --replicas=5 >/dev/null
kubectl rollout status deployment/nginx-deployment --timeout=120s
"${compose[@]}" start apiserver-1 >/dev/null 2>&1
kubectl get nodes,pods -o wide
say "the lab works"

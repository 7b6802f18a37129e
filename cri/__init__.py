"""The CRI runtime: `runtime.v1.RuntimeService` and `ImageService` on containerd's own API.

What lives here: sandboxes, containers, their logs and streams, images, CNI. What does not: pods (the kubelet's
business), the Kubernetes API, Services. Nothing here imports another component.

Read first: `runtime_service` (each RPC names its file), then `sandbox_run`, `container_create`, `container_start`.
`state` holds what is known, `recovery` how it is found again after a restart, `events` how an exit arrives.
"""

"""Hollow nodes: real kubelets on a simulated runtime, many in one process. No root, no containerd, no containers.

`behaviour.py` (pure) says what a simulated container does, by its pod's annotations and its command; `runtime.py` is
the simulated CRI runtime, which passes the same contract tests as the real ones; `fleet.py` puts many kubelets on one
connection. Run them with `python -m services.kubelet.hollow --nodes 100`.
"""

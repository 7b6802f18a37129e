"""Why is it not as desired? Walks the chain of causes from an object down, and says what would fix it.

`finding.py` is what an answer consists of; `snapshot.py` the state that it is judged by; one pure module for each kind
of subject (`pods.py`, `workloads.py`, `network.py`, `volumes.py`); `ask.py` fetches the snapshot and asks the
scheduler. Served over gRPC: ControllerManager.Explain.
"""

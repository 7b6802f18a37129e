"""The kubelet: makes the pods that are bound to this node run, and tells the apiserver how they are.

How a pod lives here, in the order of the files:

    pods.py          watches the pods of this node, keeps one worker a pod, adopts what already runs, cleans up orphans
    pod_worker.py    the thin shell around one pod: observes, asks the plan, does what it says, reports the status
    pod_plan.py      the pure decision: (spec, runtime state, clock, back-off, probes) -> actions
    status.py        the pure report: (spec, runtime state, probes, last status) -> PodStatus
    pod_events.py    what the runtime says has changed, pushed; a slow relist is the safety net
    runtime.py       the CRI client; everything that leaves for the runtime goes through it
    pod_starter.py   sandbox and container start: images, environment, volumes, security context -> CRI configuration

Pure modules (no asyncio, grpc or files): runtime_state, pod_spec, pod_plan, back_off, status, qos, environment,
container_config. What does not live here: the CRI server itself (`cri`) and anything that decides where pods go.
"""

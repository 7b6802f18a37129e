"""The scheduler: which node each pod runs on.

Read in this order: `cluster_state.py` (what the nodes have and hold, as arrays), `framework.py` (what a plugin is),
one of `plugins/`, `schedule.py` (one decision over all nodes at once), `queue.py` (when a pod is tried),
`scheduler.py` (the shell that watches and binds). Nothing but `scheduler.py`, `bind.py`, `service.py` and
`__main__.py` does I/O.
"""

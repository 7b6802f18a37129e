"""The `cutaway` command: brings a cluster up on this machine and looks inside it.

What lives here: the cluster's folder and its CA, network namespaces and containerd for each node, the processes of the
components, images, and what a person sees. What does not: anything that a component decides; lab only writes their
configuration and starts them.

Read `cluster.py` first, then `components.py` (which process gets which configuration) and `supervisor.py` (who keeps
them running).
"""

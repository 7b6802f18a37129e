"""Devices that pods claim (resource.k8s.io): drivers that register on this node, and what they prepare for claims.

`drivers` finds and calls drivers, `claims` has them prepare what a pod needs and take it back, `checkpoint` is the
memory of it that outlives the kubelet. The container runtime is told by CDI names; nothing here touches a device.
"""

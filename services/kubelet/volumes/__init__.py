"""Volumes: what a pod's spec names becomes a path on this node that a container can mount.

`manager.py` is the way in; one file a type of volume; `payload.py` (pure) makes the files of configMap, secret,
downwardAPI and projected volumes, `atomic_writer.py` puts them in place; `mounting.py` speaks to the kernel.
"""

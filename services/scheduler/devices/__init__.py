"""Devices that pods claim (resource.k8s.io/v1, KEP-4381 "structured parameters"): which there are, which are taken,
and a search for some that satisfy a claim on a node.

`objects` what is decoded, `selectors` a device as CEL sees it, `catalog` the pools of each node, `constraints` what
the devices of one claim must have in common, `capacity` shares of one device, `allocator` the search, `allocation` its
outcome as a claim's status says it, `store` follows it all and remembers what was promised. The plugin that asks is
`plugins/dynamic_resources.py`. Nothing here writes.
"""

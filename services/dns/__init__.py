"""Cluster DNS: names of Services and pods, served on every node, by the Kubernetes DNS specification 1.1.

Read `records.py` first (a pure function from a Service and its EndpointSlices to records), then `zone.py` (all records,
looked up by name) and
`answer.py` (a question's answer from the zone). `server.py` speaks UDP and TCP, `forward.py` asks upstream servers for
everything else,
`publish.py` enters this instance as an endpoint of the `kube-dns` Service, through which pods reach it.
"""

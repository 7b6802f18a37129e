"""Real hosts as nodes: `cutaway token create` on the cluster, `cutaway join` on the host.

`tokens.py` makes tokens and publishes what a host must know; `discovery.py` finds the cluster and proves that it is
the right one; `signing.py` asks for certificates; `host.py` is the host's folder and its processes; `joining.py` the
whole way, there and back; `certificates.py` the process that renews. A host holds only its own certificates, never the
cluster's keys.
"""

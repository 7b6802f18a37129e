"""The ingress controller of a node: Ingress objects become the configuration of an HAProxy that it runs.

    watches ──> routes.build ──> Table ──> render.render ──> Wanted ──> changes.plan ──> commands or a reload
                (what is asked for)        (HAProxy's words)            (against what runs)

Everything up to the plan is a pure function; `sync.py` drives it, `haproxy.py` and `runtime.py` are the thin shell
around the process and its sockets. Read `table.py` first, then `routes.py`. Every text that could reach the proxy's
configuration passes `grammar.py`. `writer.py` tells the cluster: addresses in each Ingress' status, Events on what is
wrong. What does not belong here: packets to Services (services/kube_proxy) and names (services/dns).
"""

"""Makes a Service's address work on one node: nftables rules from Services and EndpointSlices.

Read `ruleset.py` first: the pure function from the API's objects to the rules as data. `render.py` says what nft
objects they are and writes differences; `table.py` keeps what the kernel holds and plans a transaction; `nft.py`
applies it; `proxy.py` is the loop around them; `trace.py` follows a packet through the data. `api.py` has the objects
as we read them. Beside it, each to be switched off for another program's sake:

- `policy/`: NetworkPolicy (`network_policy: false`);
- `network.py`: routes to other nodes' pods, VXLAN where nodes are not neighbours (`pod_network: false`);
- `announce.py`: load balancers' addresses on the local segment (`announce: false`);
- `conntrack.py`: UDP flows to endpoints that are gone; `health_check.py`: healthCheckNodePorts.

A packet to a Service::

    prerouting (from pods and outside) ─┐
    output (from this node)            ─┴─> services
        ─> @service-ips: address . protocol . port        ─┬─> pick-tcp-3-outside: a number below 3
        ─> @service-nodeports: protocol . port            ─┘   ─> @endpoints-tcp: address . port . number ─> dnat
    filter hooks (input, forward, output): @no-endpoints ─> reject, or drop where the traffic policy leaves no local
    endpoint
    postrouting: masquerade what was marked, and what would return to the pod that it came from (hairpin)
"""

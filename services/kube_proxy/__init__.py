"""Makes a Service's address work on one node: nftables rules from Services and EndpointSlices.

Read `ruleset.py` first: the pure function from the API's objects to the rules as data. `render.py` turns that data, or
the difference of two of them, into one nft transaction; `nft.py` applies it; `proxy.py` is the loop around them;
`trace.py` follows a packet through the data.

A packet to a Service::

    prerouting (from pods and outside) ─┐
    output (from this node)            ─┴─> services ─> @service-ips: address . protocol . port ─> chain of the port ─>
    dnat to an endpoint
                                                    └─> @service-nodeports: protocol . port (to an address of this node)
                                                    ─> same
    filter hooks (input, forward, output): @no-endpoints ─> reject, or drop where the traffic policy leaves no local
    endpoint postrouting: masquerade what was marked, and what would return to the pod that it came from (hairpin)

`network.py` (pod routes between nodes and the way out) runs beside it and can be switched off, for another CNI plugin's
sake.
"""

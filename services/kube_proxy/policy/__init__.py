"""NetworkPolicy in nftables, one node's part of it. `network_policy: false` leaves it to another CNI plugin.

Read `plan.py` first: the pure function from policies, pods and namespaces to rules as data. `render.py` writes them, or
the difference of two plans, as one nft transaction; `agent.py` is the loop; `selectors.py` matches labels.

A packet's way::

    forward, input: egress chain  ─ known connection: accept ─ @held ─ ip saddr vmap @egress-pods  ─> chain of the pod
    forward:        ingress chain ─ known connection: accept ─ @held ─ ip daddr vmap @ingress-pods ─> chain of the pod

They are two base chains, because accepting a packet that leaves a pod must not spare it the rules of the pod that it
goes to. A pod's chain jumps to the chain of each policy that selects it, which accepts, and then drops.
What the node itself sends to its pods (the kubelet's probes) passes the output hook, which has no rules: it is always
allowed, as the specification of NetworkPolicy has it. Services are translated before, so policies see pods.

**The first packet.** A pod's address is known to the apiserver a moment after the pod has it. From the first policy in
the cluster on, an address of this node's pod range that no known pod has is held: its packets are dropped until the
pod is known and its rules are in place, in one transaction. A client's retry then gets through, if it may. With no
policy in the cluster nothing is held. Rules stay when the proxy stops; a pod that starts meanwhile is held until it is
back. After a start of the machine there are none: then the proxy holds all pods, before anything else, until it knows
the policies.
"""

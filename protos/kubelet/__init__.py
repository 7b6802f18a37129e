"""Protocols of upstream's kubelet that third parties' drivers speak. Not ours to change: names and numbers are theirs."""

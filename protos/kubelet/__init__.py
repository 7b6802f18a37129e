"""Protocols of upstream's kubelet that drivers of third parties speak. Names and numbers are theirs."""

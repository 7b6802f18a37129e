"""Approves kubelets' certificate requests, signs approved ones, forgets old ones."""

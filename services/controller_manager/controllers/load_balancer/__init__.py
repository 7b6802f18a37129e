"""Gives Services of type LoadBalancer their addresses from a pool."""

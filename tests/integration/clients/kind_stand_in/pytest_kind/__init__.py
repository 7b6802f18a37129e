"""Stands in for the package pytest-kind, which makes a cluster in Docker: kr8s's tests get one of ours instead."""

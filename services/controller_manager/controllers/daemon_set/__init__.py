"""Keeps one pod on each node that a DaemonSet is for."""

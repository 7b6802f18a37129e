"""Sums ClusterRoles up that are chosen by label."""

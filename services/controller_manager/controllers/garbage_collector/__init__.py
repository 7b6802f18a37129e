"""Deletes what no owner is left of: a graph over all kinds, and the verdict on one object."""

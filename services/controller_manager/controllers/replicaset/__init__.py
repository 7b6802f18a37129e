"""Keeps the number of pods of ReplicaSets and ReplicationControllers."""

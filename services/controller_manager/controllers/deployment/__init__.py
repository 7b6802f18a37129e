"""Rolls a Deployment's template out over ReplicaSets, within its bounds, and back."""

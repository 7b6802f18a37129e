"""Tells kubelets, by an annotation of their node, for how long they may trust what they have read."""

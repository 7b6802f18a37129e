"""Keeps pods with names of their own, in order, with their claims."""

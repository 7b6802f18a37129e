"""Empties a namespace that is being deleted, pods first, and lets it go."""

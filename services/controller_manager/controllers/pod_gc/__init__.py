"""Removes pods that nobody else will: of gone nodes, and too many that have ended."""

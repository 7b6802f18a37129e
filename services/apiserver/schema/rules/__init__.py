"""Rules that need a hand: over several fields, over names, over what may change. One file an area.

A rule gets objects that are structurally sound in type (`structure`) and defaulted; it never raises for a missing
field.
"""

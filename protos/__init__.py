"""The contracts between components, and the Python generated from them (committed; `make protos` makes it anew)."""

"""Says the same in one Endpoints object, for readers of the older API."""

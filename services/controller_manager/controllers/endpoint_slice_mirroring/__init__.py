"""Repeats Endpoints that people write themselves as EndpointSlices."""

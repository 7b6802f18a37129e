"""Counts again what namespaces use when something of it has gone."""

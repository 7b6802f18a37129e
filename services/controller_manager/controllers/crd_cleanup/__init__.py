"""Deletes the objects of a custom definition that is being deleted."""

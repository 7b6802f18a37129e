"""Deletes secrets whose tokens nobody may use any more."""

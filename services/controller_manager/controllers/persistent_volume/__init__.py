"""Binds claims to volumes, makes, grows and removes local ones, and protects what is used."""

"""Runs pods until enough have succeeded, and counts each exactly once."""

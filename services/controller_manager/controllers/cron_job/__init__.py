"""Starts Jobs by the clock, each once."""

"""Judges nodes by their heartbeats and conditions, and taints them accordingly."""

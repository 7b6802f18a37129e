"""Scales workloads by what their pods use, within limits of number and pace."""

"""Removes pods from nodes whose NoExecute taints they do not tolerate (long enough)."""

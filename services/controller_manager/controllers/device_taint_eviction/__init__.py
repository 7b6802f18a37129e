"""Pods whose devices got a NoExecute taint leave."""

"""The Kubernetes API's own notions, pure: kinds, objects, labels, selectors, quantities, conditions, errors.

Nothing here does I/O, knows gRPC or reads the clock unless asked (`objects.now`). Read `kinds.py` and `objects.py`
first.
"""

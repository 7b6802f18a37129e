"""One file a rule. The table of what runs, in which order and with which weight, is `registry.py`."""

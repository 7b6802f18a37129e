"""What is served, and how each kind behaves when it is written.

`resource.py` is the table's row and the table, `builtin.py` its built-in rows, `strategy.py` what every kind shares;
one module for each kind that is special (`pods.py`, `services.py` …). Nothing here knows a transport, the watch cache's
inside or SQL.
"""

"""Priority and fairness: who is served first when there is more to do than can be done.

`classify.py` finds the FlowSchema of a request, `seats.py` shares what may run at once between priority levels and
queues the rest; both are pure. `control.py` keeps them in step with the objects, `upkeep.py` keeps the objects that
every cluster has (`standard.py`). The REST front waits in `rest/flow.py`. Read `seats.py` first.
"""

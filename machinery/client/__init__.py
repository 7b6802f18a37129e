"""How a component talks to the apiserver: a typed client, informers, work queues, controllers, events, leader election.

Read `api_client.py`, then `informer.py` and `controller.py`. `fake.py` is an apiserver in memory for unit tests; it
passes the contract tests that the real one passes.
"""

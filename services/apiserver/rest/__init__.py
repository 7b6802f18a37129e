"""The Kubernetes REST API over HTTPS, on the same handlers that gRPC calls.

Start with `app.py`: every request passes through it. `paths.py` says what a URL means, `negotiate.py` in which form the
answer goes, `verbs.py` calls the handlers. Discovery, OpenAPI, tables and streams to kubelets have a module each.
No rule about objects lives here: what is judged, stored or defaulted is the handlers' business.
"""

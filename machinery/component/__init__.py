"""What every process of the cluster is made of: configuration, TLS, servers, health, metrics, logs, a graceful end.

A component's `__main__.py` loads its configuration (`config.load`) and hands its main function to `process.run`; read
these two first. Nothing here knows an API object; that is `machinery.client`.
"""

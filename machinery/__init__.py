"""What every component is made of: `api` (the API's notions, pure), `client` (talks to the apiserver), `component`
(runs a process), `cel` (expressions).

Imports nothing of the project but `protos`. A third party's component builds on this package; `docs/write-a-
component.md` shows how.
"""

import os

# gRPC's core writes to stderr by itself, past every logger; what matters of it arrives as errors of calls. Its
# environment variable is read when grpc is first imported, so this is the place.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from machinery import _slim_lightkube

_slim_lightkube.install()

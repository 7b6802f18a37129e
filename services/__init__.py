"""The components, one package each; none imports another."""

import machinery  # noqa: F401 - first of all: it decides how gRPC logs and how model modules are imported

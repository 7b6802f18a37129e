"""The components, one package each; none imports another."""

import gc

import machinery  # noqa: F401 - first of all: it decides how gRPC logs and how model modules are imported

# A component begins by loading hundreds of modules: many objects and no garbage, not worth looking through again and
# again. `machinery.component.process` says the same for the time after.
gc.set_threshold(50_000, 50, 100)

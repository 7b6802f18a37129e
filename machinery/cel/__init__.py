"""Kubernetes' CEL, for whoever evaluates expressions: the apiserver's rules and policies, the scheduler's device
selectors.

`expressions` compiles and evaluates, `library` holds Kubernetes' functions, `authorization` those that ask what
somebody may do. `costs` estimates what an evaluation costs, as upstream does, from a `tree` and the `shapes` of its
variables; `budget` holds evaluations to a limit, `sizes` keeps them from filling the memory. Who uses them brings the
variables.
"""

from machinery.cel.errors import CelError
from machinery.cel.expressions import Program, compile

__all__ = ["CelError", "Program", "compile"]

"""Who is calling (authentication) and what they may do (authorization).

Start with `attributes.py`: it names what is judged. `authenticate.py` turns a certificate or a token into a user,
`rbac.py` holds the `Authorizer` that every request passes, `node.py` the narrower rights of kubelets,
`bootstrap_policy.py` the roles a new cluster has. Nothing here does I/O: state comes in by callbacks (`changed`,
`lookup`), so every decision can be tested by itself.
"""

"""What stands between a well-formed write and the store: one file a plugin, `chain.py` runs them in upstream's order.

A plugin sees a `WriteContext`. `mutate` may change `ctx.obj`; `validate` may only refuse, by raising an `ApiError`.
"""

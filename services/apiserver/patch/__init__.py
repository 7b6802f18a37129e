"""How a patch changes an object: JSON patch, merge patch, strategic merge patch and server-side apply. Pure functions.

`managed_fields` records who owns which field; `apply` merges by that ownership; `field_set` is the set arithmetic of
both.
"""

"""What an object of a kind may look like: pure functions over plain dicts, no I/O.

Everything reads one source, the OpenAPI definitions of Kubernetes v1.37 (`definitions`). The path of a write through
here:

    intake.take_in     types, unknown fields, nulls, canonical quantities and times; a body that can't be decoded is
    BadRequest
    defaults           what the author left out, as upstream fills it in (`defaulting/`, one file an area)
    validate           required fields, enumerations and formats (`constraints`, judged by one compiled validator a
    kind), then
                       what only a hand can write (`rules/`, one file an area), then fields that may not change

An object without fault passes the compiled validator in a few microseconds; only a faulty one is walked again, slowly,
to say what is wrong and where (`structure`). Custom resources go the same way by their own schemas: `structural` judges
a definition's schema, `custom` its objects, `rules_cel` its rules, in Kubernetes' CEL
(`machinery.cel`). Read `definitions`, then `structure`, then `intake`.
"""

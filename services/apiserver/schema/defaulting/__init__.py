"""What upstream fills in where an author says nothing, one file an area. Every function changes its object in place.

The functions of a kind take its dict as the API has it (`{"spec": {…}}`); `services.apiserver.schema.defaults` is the
table.
"""

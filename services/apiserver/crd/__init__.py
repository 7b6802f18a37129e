"""Custom resources: what a CustomResourceDefinition makes the server do.

`rows.py` turns a definition into rows of the registry, `names.py` judges whether its names are free, `definitions.py`
follows the definitions and keeps registry, conditions and clean-up in step. How an object of a custom kind is validated
is in `schema.custom`.
"""

"""Namespace of the contracts; see `protos/cutaway/v1`."""

"""Version 1 of the contracts. Read the `.proto` files; the `_pb2` modules beside them are generated."""

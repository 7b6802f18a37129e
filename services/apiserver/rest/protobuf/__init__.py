"""Kubernetes' protobuf bodies as plain objects, and back.

Go clients since client-go 1.32 send built-in kinds as `application/vnd.kubernetes.protobuf` and fall back to nothing
else. `decode(body)` gives the object that the same request in JSON would have had; `encode(obj)` is the other way.

`envelope.py` is the way in. `table.py` knows every message's fields from data files; `decoding.py` and `encoding.py`
walk messages by it; `scalars.py` has the types whose JSON is not that of their fields; `wire.py` is the encoding
itself. `generate.py` makes the data file from kubectl's own type information, which `go_types.py` reads.

`stream.py` has the frames of a watch. Not here: content negotiation (whoever takes JSON as well gets that).
"""

from __future__ import annotations

from services.apiserver.rest.protobuf.envelope import check_encodable, decode, encode

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

__all__ = ["MEDIA_TYPE", "check_encodable", "decode", "encode"]

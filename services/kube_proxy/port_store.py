"""ServicePorts by key, each kept as bytes: a table of ten thousand is read one at a time, and seldom."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import msgspec

from services.kube_proxy.ruleset import ServicePort

_encode_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.msgpack.Decoder(ServicePort).decode


class PortStore(MutableMapping[str, ServicePort]):
    """A dict whose values are made anew at each look: equal, never the same object. About 5 µs a look."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        # What is encoded into bytes directly is up to a third larger than it looks.
        self._buffer = bytearray()

    def __getitem__(self, key: str) -> ServicePort:
        return _decode(self._kept[key])

    def __setitem__(self, key: str, port: ServicePort) -> None:
        _encode_into(port, self._buffer)
        encoded = bytes(self._buffer)
        if self._kept.get(key) != encoded:
            self._kept[key] = encoded

    def __delitem__(self, key: str) -> None:
        del self._kept[key]

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

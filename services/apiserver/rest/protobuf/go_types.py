"""The types that a Go program carries for its own reflection, read from its ELF file.

Go's compiler writes a descriptor for every type that a program may reflect on, with the names, types and tags of a
struct's fields. The layouts are those of the Go runtime's package `internal/abi` (types `Type`, `StructType`, `Name`)
since Go 1.18, on 64-bit little-endian machines:

    Type        size 8, pointer bytes 8, hash 4, flags 1, align 1, field align 1, kind 1, equal 8, gc data 8,
                name offset 4, offset of the pointer type 4
    …Type       Type, then: pointer, slice, array: element 8 — map: key 8, element 8 —
                struct: package 8, fields {address 8, length 8, capacity 8}
    StructField name 8, type 8, offset 8
    Uncommon    after the above of a named type: offset of the package's path 4, …
    Name        flags 1 (2: has a tag), length varint, text [, length varint, tag]

Offsets count from the start of the section of constants, where the linker puts the descriptors. The section
`.typelink` lists the offsets of types without a name, among them pointers: `*T` leads to every named `T` of interest.
Only the generator of the field table uses this.
"""

from __future__ import annotations

import functools
import pathlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

BOOL, INT32, INT64, FLOAT64, MAP, POINTER, SLICE, STRING, STRUCT = 1, 5, 6, 14, 21, 22, 23, 24, 25
UINT8 = 8

_TYPE = struct.Struct("<QQIBBBBQQii")
_FLAG_UNCOMMON, _FLAG_EXTRA_STAR, _FLAG_NAMED = 1, 2, 4
_NAME_HAS_TAG = 2
_KIND_MASK = 31
# Where the package's path stands in a named type's descriptor, by kind; of other kinds nobody asks.
_UNCOMMON_AT = {STRUCT: _TYPE.size + 32, SLICE: _TYPE.size + 8}


@dataclass(frozen=True, slots=True)
class GoType:
    """A type: `package` and `name` ("" if it has none), and the types that it is made of."""

    address: int
    kind: int
    package: str
    name: str


@dataclass(frozen=True, slots=True)
class GoField:
    """A struct's field and its tags: `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`."""

    name: str
    type: GoType
    tag: str


class GoBinary:
    """A Go program's type descriptors. Raises ValueError if the file is no such program."""

    def __init__(self, path: pathlib.Path) -> None:
        self._data = path.read_bytes()
        if self._data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is not a 64-bit little-endian ELF file")
        sections = self._sections()
        if ".typelink" not in sections or ".rodata" not in sections:
            raise ValueError(f"{path} has no Go type information")
        self._base, offset, _ = sections[".rodata"]
        # An address in the constants is its place in the file plus this.
        self._shift = self._base - offset
        _, offset, size = sections[".typelink"]
        self._links = struct.unpack_from(f"<{size // 4}i", self._data, offset)

    def _sections(self) -> dict[str, tuple[int, int, int]]:
        """Name → address, offset in the file, size."""
        table = struct.unpack_from("<Q", self._data, 0x28)[0]
        entry_size, count, names_index = struct.unpack_from("<HHH", self._data, 0x3A)
        entries = [struct.unpack_from("<IIQQQQ", self._data, table + entry_size * number) for number in range(count)]
        names_at = entries[names_index][4]
        found = {}
        for name_at, _, _, address, offset, size in entries:
            end = self._data.index(b"\0", names_at + name_at)
            found[self._data[names_at + name_at : end].decode()] = (address, offset, size)
        return found

    def named_structs(self) -> Iterator[GoType]:
        """Every named struct type to which the program has a pointer type."""
        for link in self._links:
            pointer = self._type(self._base + link)
            if pointer.kind == POINTER:
                target = self.element(pointer)
                if target.kind == STRUCT and target.package:
                    yield target

    def element(self, of: GoType) -> GoType:
        """What a pointer, slice or map leads to."""
        return self._type(self._word(of.address + _TYPE.size + (8 if of.kind == MAP else 0)))

    def fields(self, of: GoType) -> list[GoField]:
        """A struct's fields in their order."""
        start, count = self._word(of.address + _TYPE.size + 8), self._word(of.address + _TYPE.size + 16)
        found = []
        for address in range(start, start + 24 * count, 24):
            name, tag = self._name(self._word(address))
            found.append(GoField(name, self._type(self._word(address + 8)), tag))
        return found

    @functools.cache  # noqa: B019 - one binary is read in one short run
    def _type(self, address: int) -> GoType:
        at = address - self._shift
        _, _, _, flags, _, _, kind, _, _, name_offset, _ = _TYPE.unpack_from(self._data, at)
        kind &= _KIND_MASK
        name = self._name(self._base + name_offset)[0]
        if flags & _FLAG_EXTRA_STAR:
            name = name[1:]
        package = ""
        if flags & _FLAG_UNCOMMON and flags & _FLAG_NAMED and kind in _UNCOMMON_AT:
            offset = struct.unpack_from("<i", self._data, at + _UNCOMMON_AT[kind])[0]
            package = self._name(self._base + offset)[0]
        return GoType(address, kind, package, name.rpartition(".")[2] if package else name)

    def _word(self, address: int) -> int:
        word: int = struct.unpack_from("<Q", self._data, address - self._shift)[0]
        return word

    def _name(self, address: int) -> tuple[str, str]:
        at = address - self._shift
        flags = self._data[at]
        text, at = self._text(at + 1)
        return text, self._text(at)[0] if flags & _NAME_HAS_TAG else ""

    def _text(self, at: int) -> tuple[str, int]:
        length = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                return self._data[at : at + length].decode(errors="replace"), at + length
            shift += 7

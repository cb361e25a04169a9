"""The container of a ``.trtp`` file: a zip in one canonical form, so that every byte of it is accounted for.

All members are stored, never compressed, one after the other in the order of the directory, each starting at a multiple
of `ALIGNMENT`, with zip64 headers throughout, fixed dates and no comments. Names and sizes thus decide every byte
outside the members' own data. The reader lays the same members out again and compares: there is no room for data
before, between or after members, for two directories that differ, for duplicates, links or compressed bombs. Any zip
program can list and extract such a file; a file that another program wrote, or wrote again, is refused.

Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from trtplug.artefacts.malformed import Malformed, need

ALIGNMENT = 4096  # a page, so that a member can be mapped by itself
MAX_MEMBERS = 100_000
MAX_NAME = 255
_CHUNK = 1 << 20

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_TAIL = _END64.size + _LOCATOR.size + _END.size
_SIZES, _SIZES_AND_OFFSET = struct.Struct("<2H2Q"), struct.Struct("<2H3Q")  # the zip64 extra field
_PADDING = struct.Struct("<2H")
_PADDING_ID = 0xD935  # what Android's zipalign uses
_VERSION, _MADE_BY, _DATE, _UNKNOWN = 45, 3 << 8 | 45, 0x21, 0xFFFFFFFF  # 1980-01-01; Unix
_MODE = 0o100644 << 16


class Member(NamedTuple):
    """A member's name, and the size and CRC-32 of its data."""

    name: str
    size: int
    crc: int


class Layout(NamedTuple):
    """Every byte outside of the members' data: what comes before each, where each starts, and the end."""

    headers: tuple[bytes, ...]
    starts: tuple[int, ...]
    end: bytes


def layout(members: Sequence[Member]) -> Layout:
    """How these members are laid out; there is one way only."""
    headers, starts, central = [], [], []
    place = 0
    for name, size, crc in members:
        encoded = name.encode("ascii")
        fixed = _LOCAL.size + len(encoded) + _SIZES.size + _PADDING.size
        gap = -(place + fixed) % ALIGNMENT
        extra = _SIZES.pack(1, 16, size, size) + _PADDING.pack(_PADDING_ID, gap) + bytes(gap)
        common = (_VERSION, 0, 0, 0, _DATE, crc, _UNKNOWN, _UNKNOWN, len(encoded))
        headers.append(_LOCAL.pack(b"PK\3\4", *common, len(extra)) + encoded + extra)
        wide = _SIZES_AND_OFFSET.pack(1, 24, size, size, place)
        entry = _CENTRAL.pack(b"PK\1\2", _MADE_BY, *common, len(wide), 0, 0, 0, _MODE, _UNKNOWN)
        central.append(entry + encoded + wide)
        starts.append(place + len(headers[-1]))
        place = starts[-1] + size
    directory = b"".join(central)
    count = len(members)
    end64 = _END64.pack(b"PK\6\6", 44, _MADE_BY, _VERSION, 0, 0, count, count, len(directory), place)
    locator = _LOCATOR.pack(b"PK\6\7", 0, place + len(directory), 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _UNKNOWN, _UNKNOWN, 0)
    return Layout(tuple(headers), tuple(starts), directory + end64 + locator + end)


def checksum(parts: Iterable[memoryview]) -> tuple[int, int]:
    """Size and CRC-32 of data in parts."""
    size = crc = 0
    for part in parts:
        size, crc = size + len(part), zlib.crc32(part, crc)
    return size, crc


def write(file: BinaryIO, members: Sequence[tuple[Member, Callable[[], Iterable[memoryview]]]]) -> None:
    """Writes members; each one's function gives its data in parts."""
    plan = layout([member for member, _ in members])
    for header, (_, parts) in zip(plan.headers, members):
        file.write(header)
        for part in parts():
            file.write(part)
    file.write(plan.end)


def directory(file: BinaryIO) -> list[Member]:
    """The members of a file, in order, once its end is one that `write` writes.

    Raises:
        Malformed: it is not.
    """
    length = file.seek(0, 2)
    need(length, "the file is empty")
    file.seek(0)
    start = file.read(4)
    if start != b"PK\3\4":
        kind = "a zip without members" if start[:2] == b"PK" else "not a zip"
        raise Malformed(f"it is {kind}; a .trtp file is what trtplug.save writes")
    file.seek(max(length - _TAIL, 0))
    tail = file.read(_TAIL)
    at, end_at = length - _TAIL, _END64.size + _LOCATOR.size
    if tail[end_at : end_at + 4] != b"PK\5\6" or tail[:4] != b"PK\6\6":
        raise Malformed("it is cut off, or a zip that another program wrote; a .trtp file is what trtplug.save writes")
    *_, count, bytes_, begin = _END64.unpack_from(tail)
    need(0 < count <= MAX_MEMBERS, f"its directory names {count} members")
    need(begin + bytes_ == at and bytes_ <= count * (_CENTRAL.size + MAX_NAME + 24 + 4), "its directory is misplaced")
    file.seek(begin)
    return list(_entries(file.read(bytes_), count, length))


def _entries(data: bytes, count: int, length: int) -> Iterable[Member]:
    place = 0
    names: set[str] = set()
    for _ in range(count):
        need(place + _CENTRAL.size <= len(data), "its directory is cut off")
        (signature, _, _, _, method, _, _, crc, _, _, name_length, *_) = _CENTRAL.unpack_from(data, place)
        need(signature == b"PK\1\2", "its directory is damaged")
        end = place + _CENTRAL.size + name_length
        need(end + _SIZES_AND_OFFSET.size <= len(data), "its directory is cut off")
        name = data[place + _CENTRAL.size : end].decode("ascii", "backslashreplace")
        need(name not in names, f"it has two members of the name {name!r}")
        names.add(name)
        _, _, size, stored, _ = _SIZES_AND_OFFSET.unpack_from(data, end)
        if method != 0 or size != stored:
            what = "it is compressed, or laid out in another way; a .trtp file is what trtplug.save writes"
            raise Malformed(what, name)
        if size > length:
            raise Malformed(f"it would have {size} bytes, the whole file has {length}", name)
        yield Member(name, size, crc)
        place = end + _SIZES_AND_OFFSET.size
    need(place == len(data), "its directory has more in it than its members")


def first_start(file: BinaryIO) -> int:
    """Where the first member's data starts, by its own header."""
    file.seek(0)
    header = file.read(_LOCAL.size)
    need(len(header) == _LOCAL.size, "its first header is cut off")
    *_, name_length, extra_length = _LOCAL.unpack(header)
    return int(_LOCAL.size + name_length + extra_length)


def check_layout(file: BinaryIO, members: Sequence[Member]) -> Layout:
    """Compares every byte outside of the members' data with what `write` would have written.

    Raises:
        Malformed: one differs.
    """
    plan = layout(members)
    length = file.seek(0, 2)
    last = plan.starts[-1] + members[-1].size
    need(last + len(plan.end) == length, "its members and its directory do not fill the file exactly")
    for member, header, start in zip(members, plan.headers, plan.starts):
        file.seek(start - len(header))
        if file.read(len(header)) != header:
            raise Malformed("its header is not what trtplug writes", member.name)
    file.seek(last)
    need(file.read() == plan.end, "its directory is not what trtplug writes")
    return plan


def read(file: BinaryIO, member: Member, start: int) -> memoryview:
    """A member's data, in memory of its own that is aligned to 64 bytes and can be written to.

    Raises:
        Malformed: it is cut off, or its CRC-32 is not that of the directory.
    """
    room = np.empty(member.size + 64, np.uint8)
    skip = -int(room.ctypes.data) % 64
    data = memoryview(room[skip : skip + member.size])  # type: ignore[arg-type]  # an array is a buffer
    file.seek(start)
    done = crc = 0
    while done < member.size:
        count = file.readinto(data[done : done + _CHUNK])  # type: ignore[attr-defined]  # a file opened as binary
        if not count:
            raise Malformed("the file ends within it", member.name)
        crc = zlib.crc32(data[done : done + count], crc)
        done += count
    if crc != member.crc:
        problem = "its CRC-32 differs from the directory's: the file is damaged; copy it again, or save it anew"
        raise Malformed(problem, member.name)
    return data

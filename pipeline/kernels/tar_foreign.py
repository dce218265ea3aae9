"""Members of tars that others wrote (img2dataset, webdataset, GNU tar), with their full names.

Reads through :class:`pipeline.kernels.tar_read.TarReader`, so headers are checked and nothing is
extracted. Owners, times and modes of others are no fault here; links and devices, names that leave
the archive and contents that are cut or too big are. Long names come in three ways: the prefix
field of ustar, pax records and GNU's extra member; folders are passed over.

Source: POSIX.1-2017, pax, "pax Header Block" and "ustar Interchange Format"; GNU tar manual,
"Basic Tar Format"; SPEC-dataset I4, Y2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.kernels.source_names import unsafe_name
from pipeline.kernels.tar import MAX_NAME
from pipeline.kernels.tar_read import Fault, Member, TarReader

_FILE, _FOLDER = (b"0", b"\0", b"7"), b"5"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_PREFIX = slice(345, 500)
_MAGIC = slice(257, 263)


class ForeignMember(NamedTuple):
    """A regular file of an archive, or what stands in its place.

    Attributes:
        name: with its folders, ``/`` between them; bytes that are not UTF-8 are escaped.
        data: content; empty where there is a fault.
        fault: why it cannot be used, None for a sound file.
    """

    name: str
    data: bytes
    fault: Fault | None


def foreign_members(reader: TarReader) -> Iterator[ForeignMember]:
    """Files of an archive in order; stops where a name or size cannot be known any more.

    Args:
        reader: at the beginning of an archive. After the last member ``reader.is_complete`` tells
            whether the archive ended as it should, and ``reader.faults`` what was wrong.
    """
    long_name: bytes | None = None
    for member in reader.members():
        kind, fault = member.header[156:157], _fault(member)
        if kind in (_PAX, _PAX_GLOBAL):
            records = pax_records(member.data)
            if fault is None and (records is None or b"size" in records):
                # A size of its own would move every header that follows.
                fault = Fault("tar_header", "a pax header that cannot be read", "plain records")
            if fault is not None:
                yield ForeignMember(member.name, b"", fault)
                reader.is_complete = False
                return
            if kind == _PAX and records:
                long_name = records.get(b"path", long_name)
        elif kind == _GNU_NAME:
            long_name = member.data.rstrip(b"\0")
        elif kind not in (_FOLDER, _GNU_LINK):
            yield _file(member, long_name or _header_name(member.header), fault)
            long_name = None
        else:
            long_name = long_name if kind == _GNU_LINK else None


def _file(member: Member, raw: bytes, fault: Fault | None) -> ForeignMember:
    name = raw.decode("utf-8", "backslashreplace")
    if fault is None and member.header[156:157] not in _FILE:
        fault = Fault("unsafe_member", "a link or device", "regular files")
    if fault is None and (why := unsafe_name(raw)) is not None:
        fault = Fault("unsafe_member", why, "a relative name of printable UTF-8")
    # "./a.jpg" is what `tar c .` writes.
    name = name.removeprefix("./")
    return ForeignMember(name, b"" if fault else member.data, fault)


def _fault(member: Member) -> Fault | None:
    """The first fault that makes a content useless, whoever wrote the header."""
    broken = (f for f in member.faults if f.kind in ("tar_truncated", "member_too_big"))
    return next(broken, None)


def _header_name(header: bytes) -> bytes:
    name, prefix = header[:MAX_NAME].split(b"\0")[0], b""
    if header[_MAGIC] == b"ustar\0":  # GNU's own format keeps times there
        prefix = header[_PREFIX].split(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def pax_records(data: bytes) -> dict[bytes, bytes] | None:
    """Keyword -> value of a pax header; None when it is malformed."""
    records = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        if not space or not digits.isdigit():
            return None
        length = int(digits)
        record = data[at : at + length]
        keyword, sign, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) < length or length <= len(digits) + 1 or record[-1:] != b"\n" or not sign:
            return None
        records[keyword] = value
        at += length
    return records

"""Members of a tar that :mod:`pipeline.kernels.tar` should have written, streamed and mistrusted.

Nothing is extracted. A header is right when it is the one that the writer would have made; one that
is not is told with the reason. Where the next header stands is only known while headers can be
believed, so a broken checksum or a content beyond the end stops the reading.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; SPEC-dataset W2, Y2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.kernels.tar import BLOCK, END, MAX_NAME, member_header

_SUM = slice(148, 156)
_KINDS = {b"1": "hard link", b"2": "symbolic link", b"5": "folder"}


class Fault(NamedTuple):
    """What is wrong at a place.

    Attributes:
        kind: tar_truncated, tar_header, unsafe_member or member_too_big.
        found: in words.
        expected: in words.
    """

    kind: str
    found: str
    expected: str


class Member(NamedTuple):
    """A member as it stands in the archive.

    Attributes:
        name: as the header says, without its prefix field.
        offset: of the content in the archive.
        data: content; what there is of it where the archive is cut, nothing where it is too big.
        faults: of its header and its place.
        header: its block of 512 bytes, for readers of archives that others wrote.
    """

    name: str
    offset: int
    data: bytes
    faults: tuple[Fault, ...]
    header: bytes = b""


class TarReader:
    """Reads an archive once, in order, and hashes it on the way; holds one member.

    Attributes:
        num_bytes: read so far; the whole archive after the last member.
        faults: of the archive as a whole.
        is_complete: whether the end blocks were reached.
    """

    def __init__(
        self, read: Callable[[int], bytes], num_bytes: int, max_member_bytes: int | None = None
    ) -> None:
        """Args:
        read: ``read(n)`` gives the next n bytes, fewer only at the end.
        num_bytes: size of the archive: what a broken header may ask for at most.
        max_member_bytes: contents above are passed over; None for no limit.
        """
        self.num_bytes = 0
        self.faults: list[Fault] = []
        self.is_complete = False
        self._read, self._size, self._most = read, num_bytes, max_member_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of what was read."""
        return self._digest.hexdigest()

    def members(self) -> Iterator[Member]:
        """Members up to the end blocks, or up to where headers cannot be believed."""
        while True:
            header = self._take(BLOCK)
            if header == END[:BLOCK]:
                self._end()
                return
            name = header[:MAX_NAME].rstrip(b"\0").decode("ascii", "replace")
            size = _size(header)
            if size is None:
                self._stop(header, name)
                return
            offset = self.num_bytes
            faults = list(_header_faults(header, name, size))
            is_big = self._most is not None and size > self._most
            data = b"" if is_big else self._take(size)
            if is_big:
                self._pass_over(size)
                faults.append(Fault("member_too_big", f"{size} bytes", f"at most {self._most}"))
            missing = offset + size - self.num_bytes
            if missing > 0:
                cut = Fault("tar_truncated", f"{size - missing} bytes of {name}", f"{size} bytes")
                yield Member(name, offset, data, (*faults, cut), header)
                return
            if any(self._take(-size % BLOCK)):
                faults.append(Fault("tar_header", "padding that is not zero", "zeros"))
            yield Member(name, offset, data, tuple(faults), header)

    def _pass_over(self, size: int) -> None:
        while size > 0 and (data := self._take(min(size, 1 << 20))):
            size -= len(data)

    def _take(self, size: int) -> bytes:
        data = self._read(min(size, max(0, self._size - self.num_bytes)))
        self._digest.update(data)
        self.num_bytes += len(data)
        return data

    def _end(self) -> None:
        self.is_complete = True
        rest = self._take(BLOCK)
        if rest != END[BLOCK:]:
            self.faults.append(Fault("tar_truncated", "one end block", "two blocks of zeros"))
        extra = self._drain()
        if extra:
            self.faults.append(Fault("tar_header", f"{extra} bytes after the end", "none"))

    def _stop(self, header: bytes, name: str) -> None:
        if len(header) < BLOCK:
            found = f"the archive ends at byte {self.num_bytes}"
            self.faults.append(Fault("tar_truncated", found, "two blocks of zeros at its end"))
        else:
            found = f"a header at byte {self.num_bytes - BLOCK} ({name!r}) with a wrong checksum"
            self.faults.append(Fault("tar_header", found, "a ustar header"))
        self._drain()

    def _drain(self) -> int:
        """Hash the rest."""
        before = self.num_bytes
        while self._take(1 << 20):
            pass
        return self.num_bytes - before


def _size(header: bytes) -> int | None:
    """Size field; None where the header is not one."""
    if len(header) < BLOCK:
        return None
    try:
        checksum, size = int(header[_SUM].strip(b"\0 "), 8), int(header[124:136].strip(b"\0 "), 8)
    except ValueError:
        return None
    total = sum(header) - sum(header[_SUM]) + 8 * ord(" ")
    return size if checksum == total and size >= 0 else None


def _header_faults(header: bytes, name: str, size: int) -> Iterator[Fault]:
    kind = header[156:157]
    if kind not in (b"0", b"\0"):
        found = f"{_KINDS.get(kind, f'type {kind!r}')} {name!r}"
        yield Fault("unsafe_member", found, "regular files")
        return
    try:
        expected = member_header(name, size)
    except ValueError:
        yield Fault("unsafe_member", f"name {name!r}", "a plain name without slash or leading dot")
        return
    if header != expected:
        places = [i for i in range(BLOCK) if header[i] != expected[i]]
        yield Fault("tar_header", f"other bytes at {places[:5]}", "mode 0644, owner 0, time 0")

"""Streaming a big file to its final name: it appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from pipeline.files.storage import Storage, sync_folder, temporary_name

FLUSH_BYTES = 1 << 20
WRITE_BACK_BYTES = 8 << 20
"""After so many the kernel is told to begin writing to disk, so that the sync at the end finds
little left: else a task waits for it, a seventh of the time of a shard of 150 MB."""
FLUSH_BUFFERS = 512
"""Below IOV_MAX, which is 1024 on Linux."""
_CAN_ADVISE = hasattr(os, "posix_fadvise")  # not everywhere, and nothing depends on it


class FileSink:
    """A file that grows in order.

    Locally the bytes go to a hidden temporary name, are synced, then renamed. On object stores they
    are one upload to the final key, which the store shows when it is complete.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        """Args:
        storage: root.
        name: final name below it.
        """
        self._storage, self._name = storage, name
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._num_written = self._num_on_the_way = 0
        self._fd = -1
        self._handle: IO[bytes] | None = None
        self._temporary: Path | None = None
        if storage.is_local:
            self._target = Path(storage.path(name))
            self._target.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_name(self._target)
            self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            self._temporary = temporary
        else:
            with storage.named(name):
                self._handle = cast(IO[bytes], storage.fs.open(storage.path(name), "wb"))

    def write(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Append buffers; they must not change until they are flushed, at commit if not before."""
        for buffer in buffers:
            if len(buffer):
                self._pending.append(buffer)
                self._pending_bytes += len(buffer)
        if self._pending_bytes >= FLUSH_BYTES or len(self._pending) >= FLUSH_BUFFERS - 16:
            self._flush()

    def as_file(self) -> SinkFile:
        """The sink for libraries that write to files; closing it does not commit."""
        return SinkFile(self)

    def commit(self) -> None:
        """Make the file complete, durable and visible.

        Raises:
            OSError: the disk is full or the storage fails; :meth:`abort` then leaves nothing.
        """
        self._flush()
        with self._storage.named(self._name):
            if self._handle is not None:
                self._handle.close()
                self._handle = None
                return
            os.fsync(self._fd)
            self._close()
            assert self._temporary is not None
            self._temporary.replace(self._target)
            self._temporary = None
            sync_folder(self._target.parent)

    def abort(self) -> None:
        """Leave nothing behind; nothing happens after a commit."""
        self._pending.clear()
        if self._handle is not None:
            self._discard(self._handle)
            self._handle = None
            return
        with contextlib.suppress(OSError):  # the error that led here is the one to tell
            self._close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _discard(self, handle: IO[bytes]) -> None:
        discard = getattr(handle, "discard", None)
        if discard is not None:
            with contextlib.suppress(Exception):  # the error that led here is the one to tell
                discard()
        # fsspec's files complete their upload when they are collected, unless they are closed.
        with contextlib.suppress(AttributeError):
            handle.closed = True  # type: ignore[misc]

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        with self._storage.named(self._name):
            if self._handle is not None:
                self._handle.write(b"".join(pending))
            else:
                self._write_all(pending)
                self._write_back()

    def _write_back(self) -> None:
        """Let the kernel begin to write what it holds; it drops what is on disk from memory."""
        if self._num_written - self._num_on_the_way >= WRITE_BACK_BYTES and _CAN_ADVISE:
            size = self._num_written - self._num_on_the_way
            os.posix_fadvise(self._fd, self._num_on_the_way, size, os.POSIX_FADV_DONTNEED)
            self._num_on_the_way = self._num_written

    def _write_all(self, pending: list[bytes | memoryview]) -> None:
        start = 0
        while start < len(pending):
            part = pending[start : start + FLUSH_BUFFERS]
            written = os.writev(self._fd, part)
            self._num_written += written
            for done, buffer in enumerate(part):
                if written < len(buffer):
                    pending[start + done] = memoryview(buffer)[written:]
                    start += done
                    break
                written -= len(buffer)
            else:
                start += len(part)


class SinkFile(io.RawIOBase):
    """A sink as a binary file that is only written."""

    def __init__(self, sink: FileSink) -> None:
        """Args:
        sink: where the bytes go.
        """
        self._sink, self._num_bytes = sink, 0

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._num_bytes

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Append bytes, which are copied."""
        content = bytes(data)
        self._sink.write((content,))
        self._num_bytes += len(content)
        return len(content)

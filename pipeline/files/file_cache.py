"""Whole files of an object store kept on a local disk: checked by hash, bounded, oldest use first.

Files are named by their sha256, so every process of a machine, and every run, may share a folder:
a file is fetched by one of them and appears whole. Processes agree by file locks, which die with
their owner; what a killed process left is found by its lock being free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.files.fetch import FetchPolicy, fetch_range
from pipeline.files.storage import TEMPORARY, Storage, StorageError, temporary_name

PART_BYTES = 8 << 20
"""Read at once of a file that is fetched."""
_TOUCH_SECONDS = 60.0
"""A use this long after the last one is noted."""
_OPEN_TRIES = 20
_NUM_LOCKS = 64


class WrongContentError(Exception):
    """A file that was fetched twice has not the bytes that were promised."""


@dataclass(frozen=True)
class CachedFile:
    """A file that can be cached.

    Attributes:
        storage: folder that holds it.
        name: in the folder.
        num_bytes: its size.
        sha256: hex, of its content.
    """

    storage: Storage
    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileCache:
    """A folder of fetched files.

    Attributes:
        folder: on a local disk; it may be shared by the processes of a machine.
        max_bytes: of all files, finished or not.
        policy: how they are fetched.
    """

    folder: Path
    max_bytes: int
    policy: FetchPolicy

    def read_range(self, file: CachedFile, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on, or less where it ends before.

        Raises:
            WrongContentError: its content is not the promised one.
            StorageError: it cannot be fetched, or there is no room for it.
            FileNotFoundError: the store has no such file.
        """
        path = self.folder / file.sha256
        for _ in range(_OPEN_TRIES):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._fetch(file, path)
                continue  # another process may drop it before it is opened
            try:
                _note_use(handle)
                return os.pread(handle, size, offset)
            finally:
                os.close(handle)
        raise StorageError(
            f"{self.folder}: {file.name} was dropped {_OPEN_TRIES} times before it could be read. "
            f"{self.max_bytes} bytes are too few for the processes that share the folder."
        )

    def _fetch(self, file: CachedFile, path: Path) -> None:
        """Bring a file in, unless another process just did."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(f"lock-{int(file.sha256[:8], 16) % _NUM_LOCKS:02d}"):
            if path.exists():
                return
            for is_last in (False, True):
                with self._reserved(file, path) as temporary:
                    found = self._copy(file, temporary)
                    if found == file.sha256:
                        temporary.replace(path)
                        return
                if is_last:
                    raise WrongContentError(f"sha256 {found}, expected {file.sha256}")

    def _copy(self, file: CachedFile, temporary: Path) -> str:
        """Write a file's content; returns its sha256."""
        digest = hashlib.sha256()
        with temporary.open("r+b") as out:
            for start in range(0, file.num_bytes, PART_BYTES):
                wanted = min(PART_BYTES, file.num_bytes - start)
                with file.storage.named(file.name):
                    part = fetch_range(file.storage, file.name, start, wanted, self.policy)
                digest.update(part)
                out.write(part)
                if len(part) != wanted:
                    break
        return digest.hexdigest()

    @contextlib.contextmanager
    def _reserved(self, file: CachedFile, path: Path) -> Iterator[Path]:
        """A temporary file that takes up the room of the whole one; locked while it is written."""
        temporary = temporary_name(path)
        with self._locked("lock-room"):
            self._make_room(file)
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                if file.num_bytes:
                    os.posix_fallocate(handle, 0, file.num_bytes)
            except OSError as error:
                os.close(handle)
                temporary.unlink()
                raise StorageError(
                    f"{self.folder}: no room for {file.name} of {file.num_bytes} bytes "
                    f"({error.strerror}). Lower run.shard_cache_bytes or free the disk."
                ) from error
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)

    def _make_room(self, file: CachedFile) -> None:
        """Drop files, longest unused first, until one more fits."""
        entries = []
        for path in self.folder.iterdir():
            if path.name.startswith("lock-"):
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.name.endswith(TEMPORARY) and _is_abandoned(path):
                    path.unlink()
                    continue
                entries.append((path.stat(), path))
        room = self.max_bytes - file.num_bytes - sum(stat.st_size for stat, _ in entries)
        for stat, path in sorted(entries, key=lambda e: (e[0].st_mtime_ns, e[1].name)):
            if room >= 0:
                return
            if not path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)
                room += stat.st_size
        if room < 0:
            raise StorageError(
                f"{self.folder}: {file.name} of {file.num_bytes} bytes does not fit beside what is "
                f"being fetched, {self.max_bytes} bytes in all. Raise run.shard_cache_bytes."
            )

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        handle = os.open(self.folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _note_use(handle: int) -> None:
    now = time.time()
    if now - os.fstat(handle).st_mtime > _TOUCH_SECONDS:
        os.utime(handle, (now, now))


def _is_abandoned(path: Path) -> bool:
    """Whether nobody writes a temporary file any more."""
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
    return True

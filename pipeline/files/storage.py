"""Reading and writing below a root that is a URI: a local path, s3://, gs://, hdfs://, memory://.

Every file appears whole or not at all: locally by a temporary name, fsync and rename; on object
stores by their single-put semantics. ``pipe:`` and shell URLs do not exist here.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.spec import AbstractFileSystem

TEMPORARY = ".tmp"
"""End of the hidden name under which a local file is written: ``.<name>.<random>.tmp``."""
_REMOVE_TRIES = 5
_OPTIONS = {name: {"use_listings_cache": False} for name in ("s3", "gs", "gcs")}
"""Other processes write below the same root: a listing that is remembered is wrong."""
ALLOWED_PROTOCOLS = frozenset({"file", "local", "s3", "s3a", "gs", "gcs", "hdfs", "abfs", "memory"})


class StorageError(OSError):
    """An object store did not do what it was asked, after all tries of its client."""


@dataclass(frozen=True)
class Storage:
    """Files below one root.

    Attributes:
        fs: the fsspec filesystem.
        root: path of the root inside it, no trailing slash.
        uri: the root as the user gave it, made absolute.
    """

    fs: AbstractFileSystem
    root: str
    uri: str

    @cached_property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return "file" in _protocols(self.fs)

    def path(self, name: str) -> str:
        """Path of a name below the root, as the filesystem knows it."""
        return f"{self.root}/{name}" if name else self.root

    def child(self, name: str) -> Storage:
        """Storage of a folder below this one."""
        return Storage(self.fs, self.path(name), f"{self.uri}/{name}")

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder is there."""
        return bool(self.fs.exists(self.path(name)))

    def read_bytes(self, name: str) -> bytes:
        """Whole content of a file."""
        with self.named(name):
            return cast(bytes, self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on."""
        if self.is_local:  # a tenth of the time that fsspec takes
            handle = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(handle, size, offset)
            finally:
                os.close(handle)
        return cast(bytes, self.fs.cat_file(self.path(name), start=offset, end=offset + size))

    def open_read(self, name: str, block_bytes: int | None = None) -> IO[bytes]:
        """A file opened for reading.

        Args:
            name: of the file.
            block_bytes: read ahead of object stores; None is the filesystem's own.
        """
        return cast(IO[bytes], self.fs.open(self.path(name), "rb", block_size=block_bytes))

    def num_bytes(self, name: str) -> int:
        """Size of a file."""
        return int(self.fs.size(self.path(name)))

    def read_json(self, name: str) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_bytes(name))

    def write_bytes_atomic(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new one, never a part."""
        with self.named(name):
            self._write_atomic(name, data)

    def _write_atomic(self, name: str, data: bytes) -> None:
        if not self.is_local:
            self.fs.pipe_file(self.path(name), data)
            return
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        try:
            with temporary.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    @contextlib.contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Let an error of reading or writing a file say which one it is.

        Raises:
            StorageError: in place of what an object store's client raised, which names nothing.
        """
        try:
            yield
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if not self.is_local:
                raise StorageError(f"{self.uri}/{name}: {_told(error)}") from error
            if error.filename is None:
                error.filename = self.path(name)
            raise
        except Exception as error:
            if self.is_local:
                raise
            raise StorageError(f"{self.uri}/{name}: {_told(error)}") from error

    def write_json_atomic(self, name: str, value: Any) -> None:
        """Write a value as readable JSON, keys in the given order."""
        text = json.dumps(value, indent=1, ensure_ascii=False)
        self.write_bytes_atomic(name, (text + "\n").encode())

    def list(self, name: str = "") -> list[str]:
        """Names directly below a folder, sorted; empty when it does not exist."""
        self.fs.invalidate_cache()
        if not self.exists(name):
            return []
        return sorted(
            str(p).rstrip("/").rsplit("/", 1)[-1] for p in self.fs.ls(self.path(name), False)
        )

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all below it; nothing happens when it does not exist."""
        # Another process may be removing the same folder: what it took is gone, the rest is not.
        for _ in range(_REMOVE_TRIES):
            if not self.exists(name):
                return
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm(self.path(name), recursive=True)

    def sweep(self, name: str) -> None:
        """Remove temporary files of killed processes from a folder and those below it."""
        if not self.is_local:
            return  # an unfinished upload is no file; the bucket's lifecycle rule clears it
        for path in Path(self.path(name)).rglob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)

    def make_folder(self, name: str = "") -> None:
        """Create a folder where the filesystem knows folders."""
        self.fs.makedirs(self.path(name), exist_ok=True)


def open_storage(uri: str) -> Storage:
    """Open a root.

    Args:
        uri: a local path or a URI whose protocol is in ``ALLOWED_PROTOCOLS``.

    Raises:
        ValueError: another protocol, or a login in the uri.
    """
    refuse_login(uri)
    protocol = uri.split("://", 1)[0] if "://" in uri else "file"
    if protocol not in ALLOWED_PROTOCOLS or uri.startswith("pipe:"):
        raise ValueError(
            f"storage {uri!r}: protocol {protocol!r}, expected {sorted(ALLOWED_PROTOCOLS)}."
        )
    if protocol in {"file", "local"}:
        uri = str(Path(uri.removeprefix("file://").removeprefix("local://")).expanduser().resolve())
    fs, root = filesystem_of(uri)
    return Storage(fs, root.rstrip("/"), uri.rstrip("/"))


def filesystem_of(uri: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a uri, and the path inside it; credentials come from the environment."""
    uri = uri.replace("s3a://", "s3://", 1)
    options = _OPTIONS.get(uri.partition("://")[0], {})
    fs, path = fsspec.core.url_to_fs(uri, **options)
    return fs, str(path)


def refuse_login(uri: str) -> None:
    """Refuse credentials in a uri: it stands in tables, manifests and logs.

    Raises:
        ValueError: there are some; they are not told.
    """
    protocol, _, rest = uri.partition("://")
    login, at, host = rest.partition("/")[0].rpartition("@")
    if at and ":" in login:
        raise ValueError(
            f"{protocol}://***@{host}: a login in a uri, expected credentials in the environment "
            "(AWS_ACCESS_KEY_ID, ...)."
        )


def temporary_name(target: Path) -> Path:
    """A hidden name beside a file, for its content while it is written."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make a rename inside a local folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    kind = fs.protocol
    return (kind,) if isinstance(kind, str) else tuple(kind)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

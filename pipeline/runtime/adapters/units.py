"""What the adapters hand over: units of work, the samples in them, and what was set aside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.files.storage import Storage
from pipeline.kernels.row_checks import as_text, shorten
from pipeline.kernels.source_names import split_suffix
from pipeline.kernels.source_records import Texts


@dataclass(frozen=True)
class Refused:
    """A row, sample or file that is set aside.

    Attributes:
        key: its name in the source; what is not UTF-8 is escaped.
        reason: of `ImportReason` or `ImageReason`.
        detail: what was found, shortened.
        is_sample: whether it stands for a picture; a folder or a whole tar does not.
    """

    key: str
    reason: str
    detail: str | None = None
    is_sample: bool = True


def refuse(key: str, reason: str, detail: object = None, is_sample: bool = True) -> Refused:
    """A refusal whose texts can be written whatever the name holds."""
    told = None if detail is None else shorten(printable(as_text(detail)))
    return Refused(printable(key), str(reason), told, is_sample)


def printable(name: str) -> str:
    """A name of the file system as UTF-8; bytes that are none are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Sample:
    """A picture with what its source says about it.

    Attributes:
        image_id: from the relative path, or shard and key.
        texts: title, caption, keywords.
        data: content to check; None where it is not read.
        uri: where the picture stays; None where ``data`` goes into the table.
    """

    image_id: str
    texts: Texts
    data: bytes | None = None
    uri: str | None = None


@dataclass(frozen=True)
class Listed:
    """A picture of a folder that was listed and not yet read.

    Attributes:
        name: below the source.
        record: its row of a CSV or of JSON lines.
        side_cars: names of its text and JSON files below the source.
    """

    name: str
    record: dict[str, Any] = field(default_factory=dict)
    side_cars: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """What one task reads.

    Attributes:
        name: shard or file below the source; empty for a chunk of files.
        items: of a chunk of files; what was refused while listing passes through.
    """

    name: str = ""
    items: tuple[Listed | Refused, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A file of the source as listed: its name below it, bytes, and what tells a change."""

    name: str
    num_bytes: int
    changed: str


def files_with(suffix: str, entries: Iterable[Entry | Refused]) -> Iterator[Unit]:
    """One unit a file of a suffix; what the listing refused goes last, in a unit of its own."""
    refused = []
    for entry in entries:
        if isinstance(entry, Refused):
            refused.append(entry)
        elif split_suffix(entry.name)[1] == suffix:
            yield Unit(entry.name)
    if refused:
        yield Unit(items=tuple(refused))


def walk(source: Storage, leave_out: str = "") -> Iterator[Entry | Refused]:
    """Files below a source, folder by folder, names ascending in each, its own files first.

    Links to folders are not followed and names that start with a dot are passed over. Holds the
    names of one folder (on an object store: all of them).

    Args:
        source: root.
        leave_out: local path of a folder to pass over: the run's own root, if it is inside.
    """
    if not source.is_local:
        found = source.fs.find(source.root, detail=True).items()
        for path, info in sorted(found, key=lambda item: str(item[0]).rpartition("/")):
            name = str(path).removeprefix(source.root.rstrip("/") + "/")
            changed = info.get("ETag") or info.get("LastModified") or info.get("mtime") or ""
            yield Entry(name, int(info["size"]), str(changed))
        return
    yield from _walk_local(source.root, "", os.path.realpath(leave_out) if leave_out else "")


def _walk_local(root: str, folder: str, leave_out: str) -> Iterator[Entry | Refused]:
    with os.scandir(os.path.join(root, folder)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    below = []
    for entry in entries:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            below.append(name)
        elif entry.is_symlink() and entry.is_dir():
            yield refuse(name, "symlinked_folder", os.readlink(entry.path), is_sample=False)
        else:
            stat = entry.stat(follow_symlinks=False)
            yield Entry(name, stat.st_size, str(stat.st_mtime_ns))
    for name in below:
        if os.path.realpath(os.path.join(root, name)) != leave_out:
            yield from _walk_local(root, name, leave_out)

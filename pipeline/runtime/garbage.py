"""Removing versions that nothing refers to."""

from __future__ import annotations

import datetime

from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.manifest import POINTER, VERSION_FOLDER


def collect_garbage(root: str, days: float, dry_run: bool = False) -> list[str]:
    """Delete version folders that are not current.

    A run in progress writes into a version that no pointer names yet: what is younger than ``days``
    is left alone.

    Args:
        root: folder or URI of a run.
        days: least age, by the newest file of the version.
        dry_run: only say what would go.

    Returns:
        folders below the root, sorted.
    """
    storage = open_storage(root)
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    found = []
    for home in storage.list():
        pointer = f"{home}/{POINTER}"
        if not storage.exists(pointer):
            continue
        current = storage.read_json(pointer)["path"]
        for version in storage.list(home):
            name = f"{home}/{version}"
            is_old = VERSION_FOLDER.fullmatch(version) and version != current
            if is_old and _newest(storage, name) < before:
                found.append(name)
    if not dry_run:
        for name in found:
            storage.remove(name)
    return found


def _newest(storage: Storage, name: str) -> datetime.datetime:
    files = storage.fs.find(storage.path(name))
    times = [storage.fs.modified(path) for path in files]
    stamps = [t if t.tzinfo else t.replace(tzinfo=datetime.UTC) for t in times]
    return max(stamps, default=datetime.datetime.min.replace(tzinfo=datetime.UTC))
